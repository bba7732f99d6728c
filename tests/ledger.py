"""A ledger of what happens to jobs and leases, written by the transactions themselves, and what must be true of it."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncpg

    DB = asyncpg.Connection[asyncpg.Record]

_LEASES = """
    CREATE TABLE public.ledger (
        seq bigserial PRIMARY KEY, tx bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint, what text NOT NULL,
        lane int, pos bigint, node bigint, n bigint, id bigint, attempt int,
        session text NOT NULL DEFAULT current_setting('application_name')
    );
    CREATE FUNCTION note_lease() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        same boolean := TG_OP = 'UPDATE' AND OLD.n = NEW.n;
    BEGIN
        IF TG_OP <> 'INSERT' THEN
            INSERT INTO public.ledger (what, lane, pos, node, n) SELECT 'end', OLD.lane, p, OLD.node, OLD.n
            FROM workerd.positions(CASE WHEN same THEN OLD.tickets - NEW.tickets ELSE OLD.tickets END) p;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO public.ledger (what, lane, pos, node, n) SELECT 'claim', NEW.lane, p, NEW.node, NEW.n
            FROM workerd.positions(CASE WHEN same THEN NEW.tickets - OLD.tickets ELSE NEW.tickets END) p;
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON workerd.lease FOR EACH ROW EXECUTE FUNCTION note_lease()
"""
_JOBS = """
    CREATE FUNCTION note_{table}_{what}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.ledger (what, lane, pos, id, attempt) SELECT '{what}', lane, {pos}, id, attempt FROM changed;
        RETURN NULL;
    END $$;
    CREATE TRIGGER noted_{what} AFTER {event} ON workerd.{table} REFERENCING {side} TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION note_{table}_{what}()
"""


_THERE = """
    INSERT INTO public.ledger (what, lane, pos, id, attempt)
    SELECT 'in', lane, pos, id, attempt FROM workerd.ready UNION ALL SELECT 'in', lane, NULL, id, attempt FROM workerd.scheduled
"""


async def install(db: DB) -> None:
    """Write down each claim and end of a ticket, and each job that comes into, changes in or leaves the tables of unfinished ones.

    No job may run yet; those that wait begin with what they are.
    """
    await db.execute(_LEASES)
    for table, pos in (("ready", "pos"), ("scheduled", "NULL")):
        for what, event, side in (("in", "INSERT", "NEW"), ("at", "UPDATE", "NEW"), ("out", "DELETE", "OLD")):
            await db.execute(_JOBS.format(table=table, pos=pos, what=what, event=event, side=side))
    await db.execute(_THERE)


async def violations(db: DB) -> list[str]:
    """What of the ledger must not be so; it is complete when nothing is unfinished any more."""
    rows = await db.fetch("SELECT * FROM public.ledger ORDER BY seq")
    names = {row["id"]: row["name"] for row in await db.fetch("SELECT id, name FROM workerd.node")}
    return [*_of_tickets(rows), *_of_jobs(rows), *_of_attempts(rows), *_of_writers(rows, names)]


def _of_tickets(rows: list[asyncpg.Record]) -> list[str]:
    """A ticket is in one lease at a time, its end names that lease, and its job leaves only with it or while no lease has it."""
    found = []
    holders: dict[tuple[int, int], tuple[int, int]] = {}
    ends = {(row["tx"], row["lane"], row["pos"]) for row in rows if row["what"] == "end"}
    for row in rows:
        ticket, fence = (row["lane"], row["pos"]), (row["node"], row["n"])
        match row["what"]:
            case "claim":
                if ticket in holders:
                    found.append(f"{ticket} claimed by {fence} while {holders[ticket]} held it")
                holders[ticket] = fence
            case "end":
                if holders.pop(ticket, None) != fence:
                    found.append(f"{ticket} ended by {fence}, which did not hold it")
            case "out" if row["pos"] is not None and ticket in holders and (row["tx"], *ticket) not in ends:
                found.append(f"job {row['id']} left its lease {holders[ticket]} behind")
    return found


def _of_jobs(rows: list[asyncpg.Record]) -> list[str]:
    """A job begins, moves, and ends once; it begins again only when it has ended."""
    found = []
    moves = [row for row in rows if row["what"] in ("in", "out")]
    places = defaultdict[int, int](int)
    changes = defaultdict[tuple[int, int], int](int)
    for row in moves:
        changes[row["id"], row["tx"]] += 1 if row["what"] == "in" else -1
    for (job, _), change in changes.items():  # in the order in which their transactions first touched it
        places[job] += change
        if places[job] not in (0, 1):
            found.append(f"job {job} is in {places[job]} places")
    found += [f"job {job} has not ended" for job, count in places.items() if count]
    return found


def _of_attempts(rows: list[asyncpg.Record]) -> list[str]:
    counted = sorted((row for row in rows if row["what"] in ("in", "at")), key=lambda row: (row["id"], row["seq"]))
    found = []
    for job, each in groupby(counted, key=lambda row: row["id"]):
        attempts = [row["attempt"] for row in each]
        if attempts != sorted(attempts):
            found.append(f"the attempts of job {job} fall: {attempts}")
    return found


def _of_writers(rows: list[asyncpg.Record], names: dict[int, str]) -> list[str]:
    """What a daemon holds is ended in its own sessions, or by maintenance: the name of a session begins with that of its node."""
    found = []
    for row in rows:
        owner, writer = names.get(row["node"]), row["session"].removeprefix("worker ").removesuffix(" pool")
        if row["what"] == "end" and owner != writer and writer in names.values():
            found.append(f"job at {row['lane'], row['pos']}, which {owner} held, was ended by {writer}")
    return found
