"""What errors of drivers mean, by their SQLSTATE, however they are wrapped."""

from __future__ import annotations

import asyncpg
import pytest

from workerd.errors import DatabaseError, JobError, PayloadError, TransactionConflict, WriteUnknown
from workerd.queue.driver_errors import translated

SERVER = [
    (asyncpg.DeadlockDetectedError, TransactionConflict),
    (asyncpg.SerializationError, TransactionConflict),
    (asyncpg.DataError, PayloadError),
    (asyncpg.InvalidParameterValueError, PayloadError),
    (asyncpg.CheckViolationError, PayloadError),
    (asyncpg.NoDataFoundError, JobError),
    (asyncpg.UndefinedTableError, DatabaseError),
    (asyncpg.InsufficientPrivilegeError, DatabaseError),
    (asyncpg.QueryCanceledError, DatabaseError),
    (asyncpg.DiskFullError, DatabaseError),
    (asyncpg.AdminShutdownError, WriteUnknown),
    (asyncpg.ConnectionDoesNotExistError, WriteUnknown),
    (asyncpg.InterfaceError, DatabaseError),  # it was not sent at all
    (ConnectionResetError, WriteUnknown),
    (TimeoutError, WriteUnknown),
]


@pytest.mark.parametrize(("raw", "ours"), SERVER)
def test_each_error_of_a_driver_has_its_meaning(raw: type[Exception], ours: type[Exception]) -> None:
    assert type(translated(raw("why"))) is ours


def test_a_driver_within_sqlalchemy_or_django_is_asked() -> None:
    import psycopg
    from django.db import OperationalError as OfDjango
    from sqlalchemy.exc import OperationalError as OfSqlalchemy

    deadlock = psycopg.errors.DeadlockDetected("why")
    of_django = OfDjango("why")
    of_django.__cause__ = deadlock
    for error in (deadlock, OfSqlalchemy("SELECT", {}, deadlock), of_django):
        assert type(translated(error)) is TransactionConflict
