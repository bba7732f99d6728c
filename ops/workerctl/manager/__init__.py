"""The manager: jobs, queues, nodes and schedules over HTTP."""
