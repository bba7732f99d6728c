"""What a backup says about itself, beside its rows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from workerd.errors import BackupError
from workerd.queue import migrate
from workerd.queue.schema import files

if TYPE_CHECKING:
    from workerd.queue.database import Connection

FORMAT = 1
LONGEST = 86400.0  # seconds for a statement that reads or writes a whole table

# What our sessions write and read alike, whatever the role's settings.
ALIKE = "SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL extra_float_digits = 3; SET LOCAL statement_timeout = 0"
_JOBS = """
    WITH held AS (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint AS n FROM workerd.lease l, unnest(l.tickets) r)
    SELECT 'queued' AS state, (SELECT count(*) FROM workerd.ready) - n AS n FROM held
    UNION ALL SELECT 'running', n FROM held
    UNION ALL SELECT 'scheduled', count(*) FROM workerd.scheduled
    UNION ALL SELECT state, count(*) FROM workerd.history GROUP BY state
"""
_SEQUENCES = "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'workerd' AND last_value IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Contents:
    """`jobs`: how many in each state; `days`: those for which the history has a partition; `sequences`: the numbers given out last."""

    created_at: str  # ISO 8601 with zone
    schema: int
    jobs: dict[str, int]
    days: list[str]
    sequences: dict[str, int]
    format: int = FORMAT

    def to_json(self, **more: Any) -> str:
        return json.dumps({**asdict(self), **more}, indent=1)

    @classmethod
    def from_json(cls, text: bytes) -> Contents:
        """Raises BackupError when the backup was made by a newer program, or by one before the first release."""
        said = json.loads(text)
        if said["format"] > FORMAT or said["schema"] > migrate.latest():
            raise BackupError(
                f"the backup has format {said['format']} and schema version {said['schema']}, this program knows {FORMAT} and "
                f"{migrate.latest()}: upgrade workerd on this host"
            )
        if said["schema"] < migrate.BASELINE:
            raise BackupError(
                f"the backup has schema version {said['schema']}, from before the first release, which cannot be restored"
            )
        return cls(**{name: said[name] for name in cls.__dataclass_fields__})


def own_tables() -> set[str]:
    """The tables of the queue, partitions aside. Others may stand in its schema: a role called workerd makes its own there."""
    return files.names_of_tables() | {"migration", "migration_part", "repeatable"}


async def jobs(connection: Connection) -> dict[str, int]:
    """How many jobs there are in each state."""
    return {row["state"]: row["n"] for row in await connection.fetch(_JOBS)}


async def sequences(connection: Connection) -> dict[str, int]:
    """The number that each sequence gave out last. Sequences know no snapshot: asked after one, none of its rows has a higher number."""
    return {row["sequencename"]: row["last_value"] for row in await connection.fetch(_SEQUENCES)}
