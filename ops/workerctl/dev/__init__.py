"""`workerctl dev`: a daemon in the foreground that runs the code of now."""
