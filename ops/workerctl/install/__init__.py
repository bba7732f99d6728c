"""Files that put the daemon into the hands of something else: a service manager, log rotation. Each kind is a target."""
