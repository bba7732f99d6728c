"""`workerctl top`: one daemon, its queue and its log, live on a terminal."""
