"""The hand-over, seen from both sides: a new process takes the place of this one without a moment in which nobody claims.

The old process starts the new one with one end of a channel, over which it passes the locked PID file. The new one says `ready` when it
claims; the old one says `go`, drains, and leaves when its jobs have ended. Until `go` the old one is in charge, whatever the new one does.
"""
