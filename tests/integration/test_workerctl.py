"""The toolkit as operators use it: a process for each command, on a daemon of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support import ROOT, Ctl, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import asyncpg

    DB = asyncpg.Connection[asyncpg.Record]


@pytest.fixture
def started(ctl: Ctl) -> Ctl:
    done = ctl("start", "4")
    assert done.returncode == 0, done.stderr
    return ctl


def test_help_answers_at_once() -> None:
    """Nothing is imported that takes its time and is not needed for that."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "workerctl", "--help"], capture_output=True, text=True, check=True
    )
    assert "jobs" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "workerctl.app" in imported
    assert (
        imported & {"asyncpg", "docker", "fastapi", "psutil", "pydantic", "rich", "textual", "workerd.daemon"} == set()
    )


def test_every_command_has_help_with_an_example(ctl: Ctl) -> None:
    from typer.main import get_command

    from workerctl.app import app

    def commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, (*path, name))
            else:
                yield " ".join((*path, name)), command.help or ""

    told = dict(commands(get_command(app), ()))
    assert len(told) > 20
    assert [name for name, text in told.items() if f"Example: workerctl {name}" not in text and name != "init"] == []


def test_start_status_scale_stop(ctl: Ctl) -> None:
    done = ctl("start", "4")
    assert "started (local, PID" in done.stdout
    status = ctl.json("status")
    assert (status["state"], status["workers"], status["busy"]) == ("running", 4, 0)
    assert {
        "name",
        "runtime",
        "pid",
        "node_id",
        "version",
        "started_at",
        "uptime_s",
        "jobs_done",
        "jobs_failed",
    } <= set(status)
    assert {"rss_bytes", "cpu_percent", "loop_lag_ms", "database", "slots"} <= set(status)
    assert [slot["state"] for slot in status["slots"]] == ["idle"] * 4
    again = ctl("start", "7")
    assert (again.returncode, "runs already" in again.stdout) == (0, True)
    assert ctl.json("status")["workers"] == 4
    assert "8 workers (were 4)" in ctl("scale", "8").stdout
    assert len(ctl.json("status")["slots"]) == 8
    assert ctl("health").returncode == 0
    assert ctl("health", "--ready").returncode == 0
    assert "running" in ctl("status").stdout
    assert ctl("stop").stdout == "worker stopped (local)\n"
    stopped = ctl("status", "--json")
    assert (stopped.returncode, json.loads(stopped.stdout)) == (3, {"name": "worker", "state": "stopped"})


def test_what_does_not_run_answers_3(ctl: Ctl) -> None:
    for words in (("status",), ("stop",), ("scale", "2"), ("health",), ("logs",)):
        done = ctl(*words)
        assert done.returncode == 3, words
        assert len((done.stderr or done.stdout).splitlines()) == 1


async def test_scaling_interrupts_no_job_and_stop_drains(started: Ctl, db: DB) -> None:
    jobs = [int(started("enqueue", "nap", '{"seconds": 4}').stdout) for _ in range(4)]

    async def busy() -> bool:
        return bool(started.json("status")["busy"])

    await until(busy, "a job runs")
    assert started("scale", "1").returncode == 0
    assert started.json("status")["workers"] == 1
    assert started("stop").returncode == 0
    left = await db.fetch("SELECT state, attempt FROM workerd.job WHERE id = ANY ($1)", jobs)
    assert {row["state"] for row in left} <= {"succeeded", "queued"}
    assert "running" not in {row["state"] for row in left}
    assert all(row["attempt"] <= 1 for row in left)


def test_enqueue_wait_show_list(started: Ctl) -> None:
    job = started.json("enqueue", "echo", '{"value": {"n": 1}}', "--key", "k1")["id"]
    waited = started("jobs", "wait", str(job), "--timeout", "10")
    assert (waited.returncode, json.loads(waited.stdout)) == (0, {"n": 1})
    shown = started.json("jobs", "show", str(job))
    keys = """id task queue state priority payload result error attempt max_retries retries_left progress key enqueued_at
        run_at started_at finished_at node attempts"""
    assert set(keys.split()) <= set(shown)
    assert (shown["state"], shown["attempts"][0]["outcome"]) == ("succeeded", "succeeded")
    assert started.json("jobs", "show", "--key", "k1")["id"] == job
    assert "succeeded" in started("jobs", "show", str(job)).stdout
    assert [each["id"] for each in started.json("jobs", "list", "--state", "succeeded")] == [job]
    assert "echo" in started("jobs", "list").stdout
    failing = started("enqueue", "stumble", '{"until_attempt": 9}', "--max-retries", "0").stdout.strip()
    failed = started("jobs", "wait", failing)
    assert (failed.returncode, "stumbles" in failed.stderr) == (1, True)


def test_a_wait_for_what_no_node_takes_says_so_once_and_goes_on(ctl: Ctl) -> None:
    job = ctl("enqueue", "echo", '{"value": 7}').stdout.strip()
    with subprocess.Popen(
        [sys.executable, "-m", "workerctl", "jobs", "wait", job, "--timeout", "60s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ctl.directory,
        env={**os.environ, **ctl.environment},
    ) as waiter:
        assert waiter.stderr is not None
        assert waiter.stderr.readline() == (
            f"workerctl: job {job} is queued and no living node takes it: workerctl start\n"
        )
        assert ctl("start").returncode == 0
        assert [part.strip() for part in waiter.communicate()] == ["7", ""]
    assert waiter.returncode == 0


def test_enqueue_reads_json_lines(started: Ctl) -> None:
    done = started("enqueue", "echo", "-", "--json", stdin='{"value": 1}\n\n{"value": 2}\n')
    ids = json.loads(done.stdout)["ids"]
    assert [json.loads(started("jobs", "wait", str(i)).stdout) for i in ids] == [1, 2]


def test_stats_nodes_queues(started: Ctl) -> None:
    job = started("enqueue", "echo", "--queue", "q").stdout.strip()
    started("jobs", "wait", job)
    (node,) = started.json("nodes", "list")
    assert (node["state"], node["workers"], node["transport"]) == ("alive", 4, "postgres")
    assert "q" in started("queues", "list").stdout
    assert started("queues", "pause", "q").returncode == 0
    held = started("enqueue", "echo", "--queue", "q").stdout.strip()
    assert {q["queue"]: q["paused"] for q in started.json("queues", "list")}["q"] is True
    assert started("jobs", "wait", held, "--timeout", "0.5").returncode == 1
    assert started("queues", "resume", "q").returncode == 0
    assert started("jobs", "wait", held, "--timeout", "10").returncode == 0
    assert started("stop").returncode == 0  # writes the last counters
    stats = started.json("stats")
    assert {q["queue"] for q in stats["queues"]} >= {"q", "default"}
    told = {t["task"]: t for t in stats["tasks"]}["echo"]
    assert (told["succeeded"], told["failed"], told["retried"]) == (2, 0, 0)
    assert told["run_p50_ms"] is not None
    assert "echo" in started("stats").stdout


def test_jobs_can_be_cancelled_retried_and_deleted_by_filter(ctl: Ctl, started: Ctl) -> None:
    for _ in range(3):
        started("enqueue", "echo", "--delay", "1h", "--queue", "f")
    asked = started("jobs", "cancel", "--queue", "f")
    assert (asked.returncode, "3 jobs would be cancelled: add --yes" in asked.stderr) == (2, True)
    assert "3 cancelled" in started("jobs", "cancel", "--queue", "f", "--yes").stdout
    assert started("jobs", "delete", "--queue", "f", "--yes").returncode == 0
    assert started.json("jobs", "list", "--queue", "f") == []


def test_logs_show_the_end_and_follow(started: Ctl) -> None:
    job = started("enqueue", "echo").stdout.strip()
    started("jobs", "wait", job)
    shown = started("logs").stdout
    for word in ("database", "queues", "workers", "ready", f"job {job} echo succeeded"):
        assert word in shown
    assert started("logs", "--job", job).stdout.count("\n") == 1
    assert "ready" not in started("logs", "--errors").stdout
    follower = subprocess.Popen(
        [sys.executable, "-m", "workerctl", "logs", "-f", "--lines", "1"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **started.environment},
    )
    try:
        assert follower.stdout is not None
        follower.stdout.readline()  # it has reached the end of the file
        second = started("enqueue", "echo").stdout.strip()
        while f"job {second} echo succeeded" not in follower.stdout.readline():
            pass
    finally:
        follower.kill()
        follower.communicate()


def test_check_lists_all_problems_at_once(ctl: Ctl) -> None:
    assert ctl("check").returncode == 0
    done = ctl("check", "--json", TASKS="no.such.module", LOG_DIR="/proc/nowhere")
    assert done.returncode == 1
    assert {c["check"] for c in json.loads(done.stdout) if not c["ok"]} == {"tasks", "LOG_DIR"}


def test_config_shows_every_setting_and_its_source(ctl: Ctl) -> None:
    (ctl.directory / ".env").write_text("workers=3\nOPENAI_API_KEY=sk-secret\nDJANGO_KEY=1\nMAX_RETRYS=4\n")
    done = ctl("config", "--json", "--job-timeout", "5m")
    told = json.loads(done.stdout)
    assert told["WORKERS"] == {"value": "3", "source": "WORKERS in .env"}
    assert told["JOB_TIMEOUT"] == {"value": "300.0", "source": "--job-timeout"}
    assert "sk-secret" not in done.stdout
    assert "did you mean MAX_RETRIES?" in done.stderr


def test_init_makes_a_project_that_runs(ctl: Ctl) -> None:
    del ctl.environment["TASKS"], ctl.environment["APP_DIR"]
    assert ctl("init").returncode == 0
    assert ctl("init").returncode == 2
    assert ctl("start").returncode == 0
    job = ctl("enqueue", "hello", '{"name": "you"}').stdout.strip()
    assert json.loads(ctl("jobs", "wait", job, "--timeout", "10").stdout) == "Hello you"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=ctl.directory, check=False
    )
    assert tested.returncode == 0


def test_a_module_in_the_working_directory_is_found_despite_a_foreign_env_file(ctl: Ctl) -> None:
    del ctl.environment["TASKS"], ctl.environment["APP_DIR"]
    (ctl.directory / "myapp").mkdir()
    (ctl.directory / "myapp" / "tasks.py").write_text(
        "from workerd import task\n\n@task\nasync def shout(text: str) -> str:\n    return text.upper()\n"
    )
    (ctl.directory / ".env").write_text("".join(f"FOREIGN_{n}=value {n}\n" for n in range(20)))
    done = ctl("start", TASKS="myapp.tasks")
    assert (done.returncode, done.stderr) == (0, "")
    job = ctl("enqueue", "shout", '{"text": "hi"}', TASKS="myapp.tasks").stdout.strip()
    assert json.loads(ctl("jobs", "wait", job, "--timeout", "10").stdout) == "HI"


def test_a_stale_pid_file_is_recognised(ctl: Ctl) -> None:
    assert ctl("start").returncode == 0
    pid = ctl.json("status")["pid"]
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
    assert ctl("status").returncode == 3
    assert ctl("start").returncode == 0
    assert ctl.json("status")["pid"] != pid


def test_restart_takes_new_code_and_settings(started: Ctl) -> None:
    before = started.json("status")
    assert started("restart", "2").returncode == 0
    after = started.json("status")
    assert (after["workers"], after["pid"] != before["pid"]) == (2, True)


def test_a_start_beside_the_daemon_of_another_project_says_what_runs(ctl: Ctl, tmp_path: Path) -> None:
    assert ctl("start", "--tasks", "tests.child_handlers").returncode == 0
    same = ctl("start", "--tasks", "tests.child_handlers")
    assert (same.returncode, same.stderr) == (0, "")
    assert "tests.child_handlers" in ctl("status").stdout
    status = ctl.json("status")
    assert (status["tasks"], status["app_dir"]) == (["tests.child_handlers"], str(ROOT))
    (tmp_path / "theirs.py").write_text(
        "from workerd import task\n\n\n@task\ndef hello() -> str:\n    return 'hello'\n"
    )
    here = {**ctl.environment, "APP_DIR": str(tmp_path), "TASKS": "theirs"}
    for other, words in ((Ctl(here, tmp_path), ""), (Ctl(here, ctl.directory), " --tasks theirs")):
        done = other("start")
        assert (done.returncode, "nothing changed" in done.stdout) == (0, True)
        assert done.stderr == (
            f"workerctl: the daemon that runs has the tasks tests.child_handlers of {ROOT}, not theirs of {tmp_path}: "
            f"`workerctl restart{words}` here replaces it, `workerctl start --name NAME{words}` starts one beside it\n"
        )
    assert other.json("status")["pid"] == status["pid"]
    assert other("restart", "--tasks", "theirs").returncode == 0
    assert (other.json("status")["tasks"], other("start").stderr) == (["theirs"], "")


def test_restart_keeps_the_flags_of_the_start(ctl: Ctl) -> None:
    def command_line() -> list[str]:
        return psutil.Process(ctl.json("status")["pid"]).cmdline()[3:]

    given = ("--tasks", "tests.child_handlers", "--monitor", "30", "--smtp-url", "smtp://ada:word@mail.example")
    assert ctl("start", "4", *given).returncode == 0
    first = command_line()
    done = ctl("restart")
    assert (done.returncode, done.stderr) == (0, "")
    assert (sorted(command_line()), ctl.json("status")["workers"]) == (sorted(first), 4)
    assert ctl("reload").returncode == 0
    assert ctl("restart", "3", "--monitor", "20").returncode == 0
    assert {"--workers=3", "--monitor=20", "--tasks=tests.child_handlers"} == set(command_line())
    environment = psutil.Process(ctl.json("status")["pid"]).environ()
    assert environment["WORKERD_SMTP_URL"] == "smtp://ada:word@mail.example"
    assert ctl("stop").returncode == 0
    assert ctl("restart").returncode == 0
    assert command_line() == []


def test_a_restart_in_another_folder_goes_by_its_settings(ctl: Ctl, tmp_path: Path) -> None:
    assert ctl("start", "4", "--log-level", "DEBUG").returncode == 0
    other = Ctl(ctl.environment, tmp_path)
    (tmp_path / ".env").write_text("WORKERS=1\n")
    done = other("restart")
    assert (done.returncode, done.stderr) == (
        0,
        f"workerctl: worker was started in {ctl.directory}: "
        "what it was given there does not hold here: --log-level, --workers\n",
    )
    assert other.json("status")["workers"] == 1


def test_a_restart_with_settings_that_cannot_be_used_stops_nothing(started: Ctl) -> None:
    before = started.json("status")["pid"]
    assert started("restart", "--drain-timeout", "never").returncode == 2
    assert started.json("status")["pid"] == before


def test_run_stays_in_the_foreground(ctl: Ctl) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "workerctl", "run", "-v", "--log-format", "console"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **ctl.environment},
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.rstrip().endswith("ready"):
            process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert any("workers: 1 x 1" in line for line in lines)


def test_python_m_workerctl_and_versions(ctl: Ctl) -> None:
    assert ctl("--version").stdout.startswith("workerctl ")
    assert "schema" in ctl("--version").stdout
    assert (
        subprocess.run([sys.executable, "-m", "workerd", "--version"], check=True, capture_output=True).returncode == 0
    )


def test_a_group_without_a_command_shows_its_help(ctl: Ctl) -> None:
    for words in ((), ("jobs",)):
        done = ctl(*words)
        assert (done.returncode, "Usage:" in done.stderr + done.stdout) == (2, True)
        assert (done.stderr + done.stdout).count("\n") > 5


def test_what_handlers_print_is_in_the_log(started: Ctl) -> None:
    job = started("enqueue", "printing", '{"text": "printed words"}').stdout.strip()
    assert started("jobs", "wait", job).returncode == 0
    assert "printed words" in started("logs").stdout


def test_output_that_cannot_be_written_is_one_line(started: Ctl) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, "-m", "workerctl", "status"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **started.environment},
            check=False,
        )
    assert (done.returncode, "No space left" in done.stderr, done.stderr.count("\n")) == (1, True, 1)
