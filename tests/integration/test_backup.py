"""Backups: what is in the file is what was in the database, both ways; what is damaged or would destroy is refused."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import handlers
from tests.integration.test_migrations import CATALOG
from tests.support import InProcess, until_state
from workerctl import archive
from workerd.embedded import binaries
from workerd.errors import BackupError
from workerd.maintenance import pruner
from workerd.maintenance.pruner import Pruner
from workerd.queue import migrate, pg_dump
from workerd.queue.backup import backup
from workerd.queue.contents import Contents
from workerd.queue.database import connect
from workerd.queue.migrate import Migration
from workerd.queue.restore import restore

if TYPE_CHECKING:
    import asyncpg

    from tests.support import Ctl
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

ODD = {"text": "tab\t, line\n, \\., \\N, \\\\, ', €, 漢, \u2028", "end": "\\.\n", "deep": [None, {"": 1.5}]}
ROWS = "SELECT to_jsonb(j) - 'started_at' FROM workerd.job j WHERE id <> ALL ($1) ORDER BY id"
# as workerd.cancel does, but the node is not told
ASK_TO_CANCEL = """
    UPDATE workerd.lease SET cancel = cancel + int8multirange(int8range(pos, pos + 1))
    FROM workerd.ready WHERE id = $1 AND tickets @> pos
"""
OTHERS = (
    "SELECT to_jsonb(x) FROM workerd.job_log x ORDER BY id, attempt, line",
    "SELECT to_jsonb(x) FROM workerd.key x ORDER BY key",
    "SELECT to_jsonb(x) FROM workerd.queue x ORDER BY name",
    "SELECT to_jsonb(x) FROM workerd.task x ORDER BY name",
    "SELECT to_jsonb(x) FROM workerd.tally x ORDER BY slot, node, task, queue",
)


def program_for(server: DB, way: str) -> Path | None:
    if way == "COPY":
        return None
    program = binaries.client("pg_dump", server.get_server_version().major)
    if program is None:
        pytest.skip("no pg_dump of the server's version or newer is installed")
    return program


@pytest.fixture(params=["pg_dump", "COPY"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def restored(target: DB, contents: Contents, script: bytes, *, replace: bool = False) -> int:
    async with target.transaction():
        return await restore(target, contents, script.splitlines(keepends=True), replace=replace, ttl=3600.0)


async def test_every_row_comes_back_and_what_ran_is_queued_again(
    settings: Settings, queue: Queue, db: DB, dsn: str, empty_dsn: str, way: str
) -> None:
    waiting = await queue.enqueue("nobody's", ODD, queue="elsewhere", priority=-3, key="only one")
    await queue.enqueue("nobody's", ODD, delay="1h", max_retries=7)
    # so seldom that a cancellation is not carried out before the backup
    seldom = settings.model_copy(update={"heartbeat_interval": 30.0})
    async with InProcess(seldom) as node:
        ended = [
            await queue.enqueue("echo", {"value": ODD}),
            await queue.enqueue("failing", {"number": 1}),
            await queue.enqueue("telling", {"lines": 3, "fails": True}),
        ]
        for job in ended:
            await until_state(db, job, "succeeded", "failed")
        gates = [handlers.gate(number) for number in (1, 2)]
        running, doomed = [await queue.enqueue("gated", {"number": n}) for n in (1, 2)]
        await asyncio.gather(*(begun.wait() for begun, _ in gates))
        await db.execute(ASK_TO_CANCEL, doomed)
        written: list[bytes] = []
        others: list[list[asyncpg.Record]] = []
        while (now := [await db.fetch(query) for query in OTHERS]) != others:  # the daemon wrote its tally meanwhile
            others = now
            written.clear()
            contents = await backup(db, dsn, written.append, program_for(db, way))
        before = await db.fetch(ROWS, [running, doomed])
        for _, go_on in gates:
            go_on.set()
        await node.stop()

    assert contents.jobs == {"queued": 1, "running": 2, "scheduled": 1, "succeeded": 2, "failed": 1}
    target = await connect(empty_dsn)
    assert await restored(target, contents, b"".join(written)) == 2
    assert await target.fetch(ROWS, [running, doomed]) == before
    assert [await target.fetch(query) for query in OTHERS] == others
    again = await until_state(target, running, "queued")
    assert (again["attempt"], again["failures"]) == (1, 0)
    assert [a["outcome"] for a in json.loads(again["attempts"])] == ["returned"]
    assert await target.fetchval("SELECT crashes FROM workerd.ready WHERE id = $1", running) == 0
    await until_state(target, doomed, "cancelled")
    assert not await target.fetchval("SELECT count(*) FROM workerd.lease")
    assert not await target.fetchval("SELECT count(*) FROM workerd.node WHERE dead_at IS NULL")
    assert await target.fetchval("SELECT workerd.enqueue('a', '{}', key => 'only one')") == waiting
    assert await target.fetchval("SELECT workerd.enqueue('a', '{}')") > max(contents.sequences["job_id"], waiting)
    await target.close()


async def test_the_schema_comes_back_as_it_is_made(db: DB, dsn: str, empty_dsn: str, way: str) -> None:
    written: list[bytes] = []
    contents = await backup(db, dsn, written.append, program_for(db, way))
    target = await connect(empty_dsn)
    await restored(target, contents, b"".join(written))
    shown = [
        sorted(str(row[0]) for row in await each.fetch(CATALOG) if "history_2" not in str(row[0]))
        for each in (db, target)
    ]
    await target.close()
    assert shown[0] == shown[1]
    assert len(shown[0]) > 100


async def test_what_others_made_in_the_schema_stays_and_is_not_backed_up(
    queue: Queue, db: DB, dsn: str, way: str
) -> None:
    """A role called workerd makes its tables there unless it says otherwise."""
    await db.execute(
        "CREATE TABLE workerd.theirs AS SELECT 1 AS one; CREATE VIEW public.theirs AS SELECT * FROM workerd.task_queue"
    )
    job = await queue.enqueue("echo")
    written: list[bytes] = []
    contents = await backup(db, dsn, written.append, program_for(db, way))
    assert b"theirs" not in b"".join(written)
    connection = await connect(dsn)
    await restored(connection, contents, b"".join(written), replace=True)
    assert await db.fetchval("SELECT one FROM workerd.theirs") == 1
    assert await db.fetchval("SELECT id FROM public.theirs") == job
    await db.execute("UPDATE workerd.migration SET version = -1 WHERE version = $1", migrate.latest())
    with pytest.raises(BackupError, match="move theirs to another schema"):
        await restored(connection, contents, b"".join(written), replace=True)
    await connection.close()


async def test_a_backup_of_an_older_schema_is_restored_where_its_columns_are_known(
    db: DB, queue: Queue, dsn: str, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await queue.enqueue("echo")
    written: list[bytes] = []
    contents = await backup(db, dsn, written.append, None)
    script = b"".join(written)
    newer = [*migrate.known(), Migration(migrate.latest() + 1, "probe", migrate.parse("SELECT 1"))]
    monkeypatch.setattr(migrate, "known", lambda: newer)
    target = await connect(empty_dsn)
    with pytest.raises(BackupError, match=f"schema version {contents.schema}, which ready has changed since"):
        await restored(
            target, contents, script.replace(b"COPY workerd.ready (lane,", b"COPY workerd.ready (street,"), replace=True
        )
    await restored(target, contents, script, replace=True)
    assert await migrate.current(target) == migrate.latest()
    await until_state(target, job, "queued")
    await target.close()


async def test_a_backup_from_before_the_first_release_is_refused(db: DB, queue: Queue, dsn: str) -> None:
    contents = await backup(db, dsn, lambda _: None, None)
    with pytest.raises(BackupError, match="schema version 20, from before the first release"):
        Contents.from_json(replace(contents, schema=20).to_json().encode())


async def test_what_pg_dump_wrote_can_be_restored_by_psql(queue: Queue, db: DB, dsn: str, empty_dsn: str) -> None:
    job = await queue.enqueue("echo", ODD)
    written: list[bytes] = []
    program = program_for(db, "pg_dump")
    assert program is not None
    await backup(db, dsn, written.append, program)
    psql = [str(program.with_name("psql")), "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--quiet", empty_dsn]
    done = subprocess.run(psql, input=b"".join(written), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    target = await connect(empty_dsn)
    row = await until_state(target, job, "queued")
    await target.close()
    assert json.loads(row["payload"]) == ODD


async def test_a_backup_shows_one_moment(queue: Queue, db: DB, dsn: str) -> None:
    """Jobs that come and go meanwhile are in it wholly or not at all."""
    before = await queue.enqueue_many("echo", [{"value": n} for n in range(1000)])
    later: list[asyncio.Task[Any]] = []
    written: list[bytes] = []

    def write(data: bytes) -> None:
        if not later:  # the snapshot has been taken
            later.append(asyncio.create_task(queue.enqueue_many("echo", [{}] * 1000)))
        written.append(data)

    contents = await backup(db, dsn, write, None)
    await asyncio.gather(*later)
    assert contents.jobs["queued"] == len(before)
    ready = b"".join(written).partition(b"COPY workerd.ready ")[2].partition(b"\\.\n")[0]
    assert ready.count(b"\n") - 1 == len(before)


async def test_pruning_waits_for_a_backup(db: DB, dsn: str, settings: Settings) -> None:
    expired = "SELECT count(*) FROM workerd.history_day WHERE day < current_date"
    await db.execute("SELECT workerd.add_history_days('{-864000}')")
    assert await db.fetchval(expired) > 0
    pruning, leader = Pruner(settings, {}), await connect(dsn)
    waits: list[asyncio.Task[float]] = []

    def write(_: bytes) -> None:
        if not waits:
            waits.append(asyncio.create_task(pruning.run_once(leader)))

    async with db.transaction(isolation="repeatable_read", readonly=True):
        await backup(db, dsn, write, None)  # its locks last as long as the transaction around it
        assert await waits[0] == pruner.AGAIN
    assert await pruning.run_once(leader) == pruner.ROUND
    assert await db.fetchval(expired) == 0
    await leader.close()


async def test_a_script_that_is_cut_off_changes_nothing(queue: Queue, db: DB, dsn: str) -> None:
    jobs = await queue.enqueue_many("echo", [{}] * 10)
    written: list[bytes] = []
    contents = await backup(db, dsn, written.append, None)
    whole = b"".join(written)
    cut = whole.index(b"COPY workerd.ready")
    connection = await connect(dsn)
    for script, complaint in (
        (whole[: whole.index(b"\\.", cut)], "middle of a table"),
        (whole[:cut], "does not hold the jobs"),
    ):
        with pytest.raises(BackupError, match=complaint):
            await restored(connection, contents, script, replace=True)
    await connection.close()
    assert [row["id"] for row in await db.fetch("SELECT id FROM workerd.ready ORDER BY id")] == jobs


async def test_numbers_are_not_given_out_twice(queue: Queue, db: DB, dsn: str) -> None:
    written: list[bytes] = []
    contents = await backup(db, dsn, written.append, None)
    lost = await queue.enqueue("echo")
    connection = await connect(dsn)
    await restored(connection, contents, b"".join(written), replace=True)
    await connection.close()
    assert await queue.enqueue("echo") > lost


def test_a_password_is_not_on_the_command_line() -> None:
    assert pg_dump.without_password("postgresql://u:p%40ss@h:5433/d?sslmode=require") == (
        "postgresql://u@h:5433/d?sslmode=require",
        "p@ss",
    )
    assert pg_dump.without_password("postgresql:///d?host=%2Frun&password=x") == ("postgresql:///d?host=%2Frun", "x")
    assert pg_dump.without_password("postgresql://a,b/d") == ("postgresql://a,b/d?target_session_attrs=read-write", "")


async def test_an_operator_backs_up_and_restores(ctl: Ctl, queue: Queue, db: DB, tmp_path: Path) -> None:
    job = await queue.enqueue("echo", ODD)
    attachments = tmp_path / "state" / "attachments"
    (attachments / "deep").mkdir(parents=True)
    kept = attachments / "deep" / "a.pdf"
    kept.write_bytes(b"%PDF")
    os.utime(kept, (1_000_000_000, 1_000_000_000))
    (attachments / "link").symlink_to("/etc/passwd")
    done = ctl.json("db", "backup")
    path = Path(done["file"])
    assert path.parent == tmp_path / "state" / "backups"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (done["jobs"], done["attachments"], done["size_bytes"]) == (1, 1, path.stat().st_size)
    refused = ctl("db", "restore", str(path))
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "--replace" in refused.stderr
    kept.unlink()
    await db.execute("DROP SCHEMA workerd CASCADE")
    again = ctl.json("db", "restore", str(path))
    assert (again["jobs"], again["queued_again"], again["attachments"]) == (1, 0, 1)
    assert json.loads((await until_state(db, job, "queued"))["payload"]) == ODD
    assert (kept.read_bytes(), kept.stat().st_mtime) == (b"%PDF", 1_000_000_000)
    assert not (attachments / "link").is_file() or (attachments / "link").is_symlink()


def test_only_the_newest_backups_are_kept(ctl: Ctl, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    old = [folder / f"workerd-2026010{day}T030000Z.zip" for day in range(1, 5)]
    for path in (*old, folder / "another.zip"):
        path.touch()
    stale, fresh = folder / ".workerd-x.partial", folder / ".workerd-y.partial"
    stale.touch()
    fresh.touch()
    os.utime(stale, (0, 0))
    done = ctl.json("db", "backup", "--to", str(folder), "--keep", "2")
    assert done["removed"] == [str(path) for path in old[:3]]
    assert {path.name for path in folder.iterdir()} == {Path(done["file"]).name, old[3].name, "another.zip", fresh.name}
    refused = ctl("db", "backup", "--to", str(folder / "one.zip"), "--keep", "2")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


async def test_a_backup_that_fails_leaves_no_file(ctl: Ctl, db: DB, tmp_path: Path) -> None:
    await db.execute("DROP SCHEMA workerd CASCADE")
    done = ctl("db", "backup")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "nothing to back up" in done.stderr
    assert list((tmp_path / "state" / "backups").iterdir()) == []


async def test_a_damaged_file_is_refused_before_anything_is_touched(
    ctl: Ctl, queue: Queue, db: DB, tmp_path: Path
) -> None:
    jobs = await queue.enqueue_many("echo", [{"value": n} for n in range(1000)])
    good = Path(ctl.json("db", "backup")["file"]).read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 4] ^= 1
    newer = tmp_path / "newer.zip"
    with zipfile.ZipFile(newer, "w") as made:
        made.writestr(archive.QUEUE, b"")
        made.writestr(archive.MANIFEST, json.dumps({"format": 99, "schema": 1}))
    damaged = tmp_path / "damaged.zip"
    cases = [
        (good[: len(good) // 2], "is damaged"),
        (bytes(flipped), "is damaged"),
        (b"", "is damaged"),
        (newer.read_bytes(), "upgrade"),
    ]
    for content, complaint in cases:
        damaged.write_bytes(content)
        done = ctl("db", "restore", str(damaged), "--replace")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert complaint in done.stderr
    assert ctl("db", "restore", str(tmp_path / "none.zip")).returncode == 1
    assert await db.fetchval("SELECT count(*) FROM workerd.ready") == len(jobs)


def test_an_attachment_cannot_be_written_elsewhere(tmp_path: Path) -> None:
    evil = tmp_path / "evil.zip"
    with zipfile.ZipFile(evil, "w") as made:
        made.writestr(f"{archive.ATTACHMENTS}/../../escaped", b"x")
    with zipfile.ZipFile(evil) as read, pytest.raises(BackupError, match="outside"):
        archive.extract_attachments(read, tmp_path / "inner" / "attachments")
    assert not (tmp_path / "escaped").exists()
