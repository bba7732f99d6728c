"""The daemon: one process, one event loop, N coroutine workers."""
