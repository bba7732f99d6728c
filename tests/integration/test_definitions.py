"""What the migrations make, written down: as it is on each server version, and each way in which a database may differ from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.definitions import FILE, made
from workerd.queue.definitions import drift, invalid_indexes

if TYPE_CHECKING:
    import asyncpg

    DB = asyncpg.Connection[asyncpg.Record]


async def test_what_is_written_down_is_what_the_migrations_make(empty_dsn: str) -> None:
    assert FILE.read_text(encoding="utf-8") == await made(empty_dsn), "write it down anew: make definitions"


async def test_a_schema_that_nobody_touched_has_not_drifted(db: DB) -> None:
    await db.execute("SELECT workerd.add_history_days('{8640000}')")
    assert await drift(db) == []
    assert await invalid_indexes(db) == []


CHANGES = {
    "DROP TABLE workerd.job_log": ["table job_log missing"],
    "DROP VIEW workerd.task_queue": ["view task_queue missing"],
    "DROP FUNCTION workerd.forget_changes": ["function workerd.forget_changes() missing"],
    "DROP INDEX workerd.ready_id": ["index ready.ready_id missing"],
    "DROP SEQUENCE workerd.job_id": ["sequence job_id missing"],
    "ALTER TABLE workerd.node DROP COLUMN token": ["column node.token missing"],
    "ALTER TABLE workerd.node DROP CONSTRAINT node_counts": ["constraint node.node_counts missing"],
    "ALTER TABLE workerd.tally ALTER node TYPE int": ["column tally.node changed"],
    "ALTER TABLE workerd.ready ALTER task DROP NOT NULL": ["column ready.task changed"],
    "ALTER TABLE workerd.ready ALTER queued_at DROP DEFAULT": ["column ready.queued_at changed"],
    "ALTER TABLE workerd.lease RESET (fillfactor)": ["table lease changed"],
    "CREATE OR REPLACE FUNCTION workerd.has_children() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT false'": [
        "function workerd.has_children() changed"
    ],
    "ALTER FUNCTION workerd.expiry STABLE STRICT": ["function workerd.expiry(double precision) changed"],
    "CREATE OR REPLACE VIEW workerd.job_queued AS SELECT * FROM workerd.job_queued WHERE id > 0": [
        "view job_queued changed"
    ],
    "ALTER TABLE workerd.key ADD COLUMN mine text": ["column key.mine added"],
    "CREATE INDEX mine ON workerd.ready (task)": ["index ready.mine added"],
    "CREATE TRIGGER mine BEFORE UPDATE ON workerd.key FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()": [
        "trigger key.mine added"
    ],
    "CREATE VIEW workerd.mine AS SELECT 1 AS one": [],
    "CREATE TABLE workerd.mine (id int PRIMARY KEY)": [],
}


async def test_each_change_is_seen_and_named(db: DB) -> None:
    found = {}
    for change in CHANGES:
        undone = db.transaction()
        await undone.start()
        await db.execute(change)
        found[change] = [f"{each.object} {each.how}" for each in await drift(db)]
        await undone.rollback()
    assert found == CHANGES
