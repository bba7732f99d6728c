"""How daemons are run on a host: as a bare process here; each runtime knows the same verbs."""
