#!/bin/sh
# Starts the worker daemon whatever folder, PATH and user's environment it is called with: by supervisor, pm2, or the form of a hosting
# panel. Settings: in the file named below. What handlers want in their environment is exported here.
# pm2's line to this process: a program on Node that a handler starts would take it for its own.
unset NODE_CHANNEL_FD NODE_CHANNEL_SERIALIZATION_MODE
cd /opt/shop || exit 2
# `exec`: the process that is watched and told to stop is the daemon's own.
exec /opt/worker/bin/python -m workerd --config /etc/workerd/worker.env "$@"
