"""The benchmark of `workerctl bench`: daemons as users run them, on a database made for it."""
