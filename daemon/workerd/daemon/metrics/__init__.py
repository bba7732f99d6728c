"""The daemon over HTTP: figures for Prometheus, health for probes."""
