"""A node's way to the queue through a manager, over HTTP."""
