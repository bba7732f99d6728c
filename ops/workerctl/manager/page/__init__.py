"""The live web page: rendered here, kept fresh by server-sent events, of use without script for reading."""
