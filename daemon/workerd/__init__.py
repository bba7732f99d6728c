"""workerd: a job queue on PostgreSQL. `@task` declares, `Queue` enqueues, the daemon `workerd` runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from workerd.around import middleware
    from workerd.asked import After
    from workerd.ended import Ended, on_end
    from workerd.errors import (
        DatabaseError,
        JobError,
        JobFailed,
        PayloadError,
        TaskError,
        TransactionConflict,
        WorkerdError,
        WriteUnknown,
    )
    from workerd.job import Job
    from workerd.lifecycle import on_shutdown, on_startup
    from workerd.outcomes import Discard, RetryAfter, Snooze
    from workerd.queue.client import Queue
    from workerd.queue.flow import Batch, Call
    from workerd.queue.sync_client import SyncQueue
    from workerd.resources import Resource, resource, use
    from workerd.retry import Retry
    from workerd.schedules import Schedule, schedule
    from workerd.tasks import Task, task

_HOME = {
    "After": "workerd.asked",
    "Batch": "workerd.queue.flow",
    "Call": "workerd.queue.flow",
    "DatabaseError": "workerd.errors",
    "Discard": "workerd.outcomes",
    "Ended": "workerd.ended",
    "Job": "workerd.job",
    "JobError": "workerd.errors",
    "JobFailed": "workerd.errors",
    "PayloadError": "workerd.errors",
    "Queue": "workerd.queue.client",
    "Resource": "workerd.resources",
    "Retry": "workerd.retry",
    "RetryAfter": "workerd.outcomes",
    "Schedule": "workerd.schedules",
    "Snooze": "workerd.outcomes",
    "SyncQueue": "workerd.queue.sync_client",
    "Task": "workerd.tasks",
    "TaskError": "workerd.errors",
    "TransactionConflict": "workerd.errors",
    "WorkerdError": "workerd.errors",
    "WriteUnknown": "workerd.errors",
    "middleware": "workerd.around",
    "on_end": "workerd.ended",
    "on_shutdown": "workerd.lifecycle",
    "on_startup": "workerd.lifecycle",
    "resource": "workerd.resources",
    "schedule": "workerd.schedules",
    "task": "workerd.tasks",
    "use": "workerd.resources",
}

__all__ = [
    "After",
    "Batch",
    "Call",
    "DatabaseError",
    "Discard",
    "Ended",
    "Job",
    "JobError",
    "JobFailed",
    "PayloadError",
    "Queue",
    "Resource",
    "Retry",
    "RetryAfter",
    "Schedule",
    "Snooze",
    "SyncQueue",
    "Task",
    "TaskError",
    "TransactionConflict",
    "WorkerdError",
    "WriteUnknown",
    "__version__",
    "middleware",
    "on_end",
    "on_shutdown",
    "on_startup",
    "resource",
    "schedule",
    "task",
    "use",
]


def __getattr__(name: str) -> object:
    """Import on first use: `workerctl --help` must not pay for the database driver."""
    if name == "__version__":
        from importlib.metadata import version

        return version("workerd")
    if name not in _HOME:
        raise AttributeError(f"module 'workerd' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
