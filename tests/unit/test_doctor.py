"""What is judged a problem, a warning or fine: limits that no test can bring a real host to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from workerctl.doctor import assistant, daemon, memory, server, sessions
from workerctl.doctor.directories import judge_room
from workerctl.doctor.errors import is_failing
from workerctl.doctor.finding import from_error, warning
from workerd.errors import DatabaseError
from workerd.queue.condition import Rows
from workerd.queue.server import Headroom
from workerd.settings import Settings

if TYPE_CHECKING:
    from workerctl.doctor.finding import Finding

MB, GB = 2**20, 2**30


@pytest.mark.parametrize(
    ("free", "total", "level"),
    [
        (200 * GB, 252 * GB, "ok"),
        (2 * GB, 252 * GB, "ok"),
        (900 * MB, 252 * GB, "warning"),
        (900 * MB, 2 * GB, "ok"),  # a small disk
        (10 * MB, 252 * GB, "problem"),
        (10 * MB, 20 * MB, "problem"),
    ],
)
def test_little_room_is_a_warning_and_none_a_problem(free: int, total: int, level: str) -> None:
    found = judge_room(["STATE_DIR", "LOG_DIR"], Path("/var/lib/worker"), free, total)
    assert found.level == level
    assert level == "ok" or "STATE_DIR and LOG_DIR (/var/lib/worker)" in found.found


@pytest.mark.parametrize(
    ("max_memory", "available", "total", "limit", "words"),
    [
        (None, 8 * GB, 24 * GB, None, ""),
        (500 * MB, 8 * GB, 24 * GB, None, ""),
        (500 * MB, 8 * GB, 24 * GB, 1 * GB, ""),
        (1 * GB, 8 * GB, 24 * GB, 1 * GB, "MAX_MEMORY is 1,024 MB and this container may take 1,024 MB"),
        (32 * GB, 8 * GB, 24 * GB, None, "this host has 24,576 MB"),
        (None, 1 * GB, 24 * GB, None, "1,024 MB of 24,576 MB are available"),
    ],
)
def test_memory_that_cannot_suffice_is_a_warning(
    max_memory: int | None, available: int, total: int, limit: int | None, words: str
) -> None:
    found = memory.judge(max_memory, available, total, limit)
    assert found.level == ("warning" if words else "ok")
    assert words in found.found


def test_the_limit_of_a_container_is_read_from_either_version_of_control_groups(tmp_path: Path) -> None:
    assert memory.limit_of_container(tmp_path) is None
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory.limit_of_container(tmp_path) is None
    (tmp_path / "memory/memory.limit_in_bytes").write_text("536870912\n")
    assert memory.limit_of_container(tmp_path) == 512 * MB
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory/memory.limit_in_bytes").unlink()
    assert memory.limit_of_container(tmp_path) is None
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert memory.limit_of_container(tmp_path) == GB


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (server.judge_clock(0.3, 0.001), "ok"),
        (server.judge_clock(1.4, 0.6), "ok"),  # the answer took long
        (server.judge_clock(1.2, 0.01), "warning"),
        (server.judge_clock(-3600, 0.01), "warning"),
        (server.judge_age(200_000_000), "ok"),
        (server.judge_age(1_100_000_000), "warning"),
        (server.judge_age(1_700_000_000), "problem"),
        (server.judge_headroom(Headroom("max_connections of the server", 60, 97), 15), "ok"),
        (server.judge_headroom(Headroom("max_connections of the server", 90, 97), 15), "warning"),
        (server.judge_headroom(Headroom("the connection limit of the role", 20, 10), 15), "warning"),
        (sessions.judge_rows([Rows("ready", 0, 90_000, True)]), "ok"),
        (sessions.judge_rows([Rows("ready", 0, 200_000, True), Rows("key", 0, 0, True)]), "warning"),
        (sessions.judge_rows([Rows("ready", 5_000_000, 200_000, True)]), "ok"),  # before the next vacuum
    ],
)
def test_what_a_server_tells_is_judged(found: Finding, level: str) -> None:
    assert found.level == level
    assert bool(found.advice) is (level != "ok")


SAID = {
    "pid": 7,
    "state": "running",
    "stuck": [],
    "loop_lag_ms": 0.2,
    "busy": 1,
    "workers": 2,
    "database": {"state": "connected", "since": "2026-01-01T00:00:00Z", "reason": None},
}
LOST = {"state": "refused", "since": "2026-01-01T00:00:00Z", "reason": "the password is wrong"}


@pytest.mark.parametrize(
    ("said", "level", "words"),
    [
        ({}, "ok", "running, PID 7, 1 of 2 workers busy"),
        ({"stuck": ["finisher"]}, "problem", "finisher: no turn any more"),
        ({"database": LOST}, "problem", "it takes no jobs, its database is refused"),
        ({"database": LOST, "state": "draining"}, "ok", "draining"),
        ({"loop_lag_ms": 2500.0}, "warning", "blocks its loop, for 2.5 s"),
    ],
)
def test_a_daemon_is_judged_by_what_it_says_of_itself(said: dict[str, Any], level: str, words: str) -> None:
    found = daemon.judge({**SAID, **said})
    assert (found.level, words in found.found) == (level, True)


def test_a_queue_of_notifications_that_fills_up_is_a_problem() -> None:
    assert list(server.judge_notifications(0.4)) == []
    (found,) = server.judge_notifications(0.7)
    assert (found.level, "70% full" in found.found) == ("problem", True)


@pytest.mark.parametrize(
    ("succeeded", "failed", "retried", "failing"),
    [(0, 4, 0, False), (0, 5, 0, True), (0, 0, 5, True), (100, 5, 5, False), (90, 5, 5, True), (0, 0, 0, False)],
)
def test_a_task_fails_when_a_tenth_of_its_attempts_do(succeeded: int, failed: int, retried: int, failing: bool) -> None:
    assert is_failing(succeeded, failed, retried) is failing


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"openai_api_key": "sk-proj-Ab_9"}, []),
        ({"openai_api_key": '"sk-proj"'}, ["OPENAI_API_KEY"]),
        ({"openai_api_key": "sk-pröj"}, ["OPENAI_API_KEY"]),
        ({"mineru_api_token": "a b"}, ["MINERU_API_TOKEN"]),
        ({"openai_api_base": "http://127.0.0.1:8080/v1", "webhook_url": "https://chat.example/x"}, []),
        ({"openai_api_base": "api.example/v1"}, ["OPENAI_API_BASE"]),
        ({"webhook_url": "https://"}, ["WEBHOOK_URL"]),
        ({"smtp_url": "smtps://user:pass@mail.example"}, []),
        ({"smtp_url": "smtp://mail.example:no"}, ["SMTP_URL"]),
        ({"smtp_url": "https://mail.example", "webhook_url": "x"}, ["WEBHOOK_URL", "SMTP_URL"]),
    ],
)
def test_settings_of_the_invoice_assistant_are_judged_by_their_form(given: dict[str, str], wrong: list[str]) -> None:
    found = assistant.assistant(Settings(tasks=("invoices",), **given))  # type: ignore[arg-type]
    assert [each.found.split()[0] for each in found if not each.ok] == wrong
    assert assistant.assistant(Settings(tasks=("myapp",), **given)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "found", "advice"),
    [
        ("the database is away (is it running?)", "the database is away", "is it running?"),
        ("it  is\n away", "it is away", "look there"),
    ],
)
def test_an_error_is_told_as_what_it_is_and_what_to_do(text: str, found: str, advice: str) -> None:
    told = from_error("database", DatabaseError(text), "look there")
    assert (told.found, told.advice) == (found, advice)


def test_a_warning_is_shown_to_scripts_and_does_not_fail() -> None:
    assert warning("disk", "almost full", "free some room").to_json() == {
        "check": "disk",
        "ok": True,
        "problem": None,
        "level": "warning",
        "found": "almost full",
        "advice": "free some room",
    }
