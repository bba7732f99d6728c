"""A password of the settings is seen nowhere, however it was given and whatever fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support import Ctl, DaemonProcess, until_state

if TYPE_CHECKING:
    import asyncpg

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

PASSWORD = "Tr0ub4dor&3"


@pytest.fixture
def secret(dsn: str) -> str:
    """The address of the test's database with a password, which this server does not ask for."""
    return dsn.replace("workerd@", f"workerd:{PASSWORD}@", 1)


def written(settings: Settings) -> str:
    return "".join(file.read_text() for file in settings.log_dir.iterdir() if file.is_file())


@pytest.mark.parametrize("way", ["flag", "environment", "file"])
async def test_a_password_is_in_no_log_answer_error_or_command_line(
    settings: Settings, ctl: Ctl, queue: Queue, db: DB, secret: str, way: str
) -> None:
    environment = {"DATABASE_URL": secret} if way == "environment" else {"DATABASE_URL": ""}
    words = ["--database-url", secret] if way == "flag" else []
    if way == "file":
        (ctl.directory / ".env").write_text(f"DATABASE_URL='{secret}'\n")
    seen = [ctl("start", *words, **environment)]
    assert seen[0].returncode == 0, seen[0].stderr
    job = await queue.enqueue("failing", {"number": 1, "how": f"{PASSWORD} of {secret}"})
    await until_state(db, job, "failed")
    seen += [ctl(*each, *words, **environment) for each in (("status", "--json"), ("config",), ("check",), ("logs",))]
    error = await db.fetchval("SELECT error FROM workerd.job WHERE id = $1", job)
    processes = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if "workerd" in (p.info["cmdline"] or [])]
    assert processes
    assert "********" in error
    for text in (*(s.stdout + s.stderr for s in seen), written(settings), error, repr(processes)):
        assert PASSWORD not in text


async def test_a_daemon_that_is_given_a_password_by_flag_hides_it(settings: Settings, secret: str) -> None:
    with DaemonProcess(settings.model_copy(update={"database_url": secret})) as daemon:
        daemon.start()
        assert daemon.process is not None
        line = Path(f"/proc/{daemon.process.pid}/cmdline").read_text()
        assert "--workers=4" in line
        assert PASSWORD not in line + written(settings)


@pytest.mark.parametrize(
    "address",
    ["postgresql://me:{}@127.0.0.1:1/x", "postgresql://me:{}@h:port/db", "{}", "postgresql://me:{}@h/x?sslmode=odd"],
)
def test_an_address_that_cannot_be_used_is_refused_without_its_password(ctl: Ctl, address: str) -> None:
    for words in (("start",), ("jobs", "list"), ("check",)):
        done = ctl(*words, "--database-url", address.format(PASSWORD))
        assert done.returncode != 0
        assert PASSWORD not in done.stdout + done.stderr
