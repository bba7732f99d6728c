"""Child processes that run `cpu=True` handlers: one child, one pipe, one job."""
