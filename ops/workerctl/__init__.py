"""workerctl: operates the daemon and looks after its queue."""
