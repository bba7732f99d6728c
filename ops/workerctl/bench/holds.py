"""How long a lane stays locked, seen from another session through pg_locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl.bench.server import NAME
from workerd.queue.database import connect

if TYPE_CHECKING:
    import asyncio

ROUND = 0.25  # seconds of one call: a longer one would be an old snapshot to the others

_HOLDER = """
    CREATE FUNCTION pg_temp.holder() RETURNS text LANGUAGE sql AS $$
        SELECT virtualtransaction FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND classid = 'workerd.lease'::regclass::oid
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    $$
"""
# Rests, waits until a transaction takes the lock, and follows it until it lets go. Each hold is as likely to be picked as any
# other, whatever its length. It is seen about half a look too late at both ends, which evens out. The rests, most of the time,
# are for the daemons: a look costs some 50 microseconds.
_HOLDS = """
    CREATE FUNCTION pg_temp.holds(a_seconds double precision) RETURNS SETOF double precision LANGUAGE plpgsql AS $$
    DECLARE
        until timestamptz := clock_timestamp() + make_interval(secs => a_seconds);
        before text;
        holder text;
        began timestamptz;
    BEGIN
        LOOP
            PERFORM pg_sleep(0.003 + 0.006 * random());
            before := coalesce(pg_temp.holder(), '');
            LOOP
                holder := pg_temp.holder();
                began := clock_timestamp();
                IF began > until THEN
                    RETURN;
                END IF;
                EXIT WHEN holder <> before;
            END LOOP;
            WHILE holder = pg_temp.holder() LOOP
            END LOOP;
            RETURN NEXT 1000 * extract(epoch FROM clock_timestamp() - began);
        END LOOP;
    END $$
"""


async def watch(dsn: str, over: asyncio.Event) -> list[float]:
    """Milliseconds of the holds that were followed until `over`."""
    connection = await connect(dsn, NAME)
    try:
        await connection.execute(_HOLDER)
        await connection.execute(_HOLDS)
        holds: list[float] = []
        while not over.is_set():
            holds += [row[0] for row in await connection.fetch("SELECT pg_temp.holds($1)", ROUND)]
        return holds
    finally:
        await connection.close()
