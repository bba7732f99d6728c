"""The record of what was changed through the manager: who, what, when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workerd import codec

if TYPE_CHECKING:
    from workerd.job import AnyConnection

_WRITE = "INSERT INTO workerd.audit (who, action, target, detail) VALUES ($1, $2, $3, $4::jsonb)"
_READ = "SELECT id, at, who, action, target, detail FROM workerd.audit WHERE id < $1 ORDER BY id DESC LIMIT $2"


async def write(connection: AnyConnection, who: str, action: str, target: str | None, detail: dict[str, Any]) -> None:
    """`action` such as `retry`, `target` such as `job 5`."""
    await connection.execute(_WRITE, who, action, target, codec.dumps(detail, "the detail") if detail else None)


async def read(connection: AnyConnection, before: int, limit: int) -> list[dict[str, Any]]:
    """The newest entries with an id below this."""
    rows = await connection.fetch(_READ, before, limit)
    return [
        codec.as_json(row) | {"detail": None if row["detail"] is None else codec.loads(row["detail"])} for row in rows
    ]
