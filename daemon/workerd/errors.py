"""The tree of errors. The message of each is one line for the person who has to act on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class WorkerdError(Exception):
    """Anything that workerd itself reports; its text says what is wrong and what to do."""


class ConfigError(WorkerdError):
    """Settings that cannot be used. `problems` holds one line for each of them."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class DatabaseError(WorkerdError):
    """The database cannot be reached or refuses to serve."""


class WriteUnknown(DatabaseError):
    """The connection was lost before the answer came, for this `reason`: what was asked may have been written, or not."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"it is not known whether this was written, the connection was lost before the answer: {reason} "
            "(look for the job before you enqueue it again, or give it a key)"
        )
        self.reason = reason


class TransactionConflict(DatabaseError):
    """Two transactions hindered each other, and this one was rolled back: it can be run again."""


class SchemaError(DatabaseError):
    """The schema in the database does not fit this program."""


class EmbeddedError(DatabaseError):
    """The embedded PostgreSQL cannot be made, started or stopped."""


class NodeDead(DatabaseError):
    """This node was declared dead: it may claim nothing until it has registered anew."""


class LaneLocked(DatabaseError):
    """A lane stays locked by another session: nothing can be claimed of it meanwhile."""


class ManagerError(DatabaseError):
    """The manager, by which this node reaches the database, cannot be reached or does not do what it is asked."""


class RequestRefused(ManagerError):
    """The manager refuses what a request carries: to send the same again is in vain."""


class TokenRefused(ManagerError):
    """The manager does not take the token, or lets it do less than a node needs."""


class BackupError(DatabaseError):
    """A backup cannot be made, read or restored."""


class NodeError(WorkerdError):
    """A node does not exist, is named by more than one, or did not do what it was ordered to."""


class NodeNotFound(NodeError):
    """There is no node of this name or id."""


class TaskError(WorkerdError):
    """A task is unknown, declared wrongly, or called with arguments that do not fit."""


class StartupError(WorkerdError):
    """What the code of the tasks does at the start of a daemon has failed: it does not start."""


class PayloadError(TaskError):
    """A payload or result is not JSON, too large, or not what its task takes."""


class JobError(WorkerdError):
    """A job does not exist, or is not in a state that allows what was asked."""


class NotFound(JobError):
    """There is no job, or no schedule, of this id or name."""


class JobFailed(JobError):
    """A job whose result was awaited ended as failed or cancelled."""


class LeaseLost(JobError):
    """The job was rescued or given back: this run may no longer write about it."""


class NotRunning(WorkerdError):
    """No daemon of that name runs here."""


class HandoverFailed(WorkerdError):
    """The new process did not take over; the old one goes on."""


class AlreadyRunning(WorkerdError):
    """A daemon of that name runs here already."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions of which a group is made, however deep it is; of another one itself."""
    left = [error]
    while left:
        each = left.pop()
        if isinstance(each, BaseExceptionGroup):
            left.extend(reversed(each.exceptions))
        else:
            yield each
