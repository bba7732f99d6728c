"""How daemons are run on a host: a bare process, a systemd unit, containers. Each runtime knows the same verbs."""
