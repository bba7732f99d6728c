"""Cycle: finish what succeeded and claim the next jobs in one round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from workerd.queue import ends
from workerd.queue.claim import Answer, Wanted, claim, read, refusal
from workerd.queue.finish import Finished, owned, succeeded
from workerd.queue.quarantine import is_refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.job import AnyConnection


_CYCLE = f"SELECT * FROM workerd.cycle({', '.join(f'${place}' for place in range(1, 20))})"  # noqa: S608 - placeholders


async def cycle(
    connection: AnyConnection, node: int, ended: Sequence[Finished], wanted: Wanted
) -> tuple[list[bool], Answer]:
    """Write ends of attempts of one node that succeeded, if there are any (for each whether its lease still held it), and claim.

    Raises NodeDead when the node was declared dead, LaneLocked when the lane stays locked: then nothing was written.
    """
    if not ended:
        return [], await claim(connection, node, wanted)
    try:
        row = await connection.fetchrow(_CYCLE, node, *succeeded(ended), *wanted.arguments)
    except asyncpg.PostgresError as error:
        if not is_refusal(error):
            raise refusal(error) from error
        held = await ends.write(connection, node, ended)  # one after the other, each finds what it is refused for
        return held, await claim(connection, node, wanted)
    assert row is not None
    return owned(ended, row), await read(connection, node, wanted, row)
