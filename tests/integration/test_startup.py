"""What a command imports: no more than it needs. Time is not measured: what is not imported takes none."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer._click.utils import make_default_short_help
from typer.main import get_command

from workerctl.app import app
from workerctl.table import TABLE, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support import Ctl

# Forks for each command line, so that the interpreter and typer start once; prints the modules that each has in the end.
PROBE = """
import json, os, sys
import typer
told = []
for words in json.loads(sys.argv[1]):
    reader, writer = os.pipe()
    if os.fork() == 0:
        sys.argv[:] = ["workerctl", *words]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = None
        try:
            from workerctl.__main__ import main
            main()
        except SystemExit as end:
            code = end.code
        finally:
            os.write(writer, json.dumps([code, sorted(sys.modules)]).encode())
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told.append(json.loads(pipe.read()))
    os.wait()
print(json.dumps(told))
"""
HEAVY = frozenset(
    {
        "cronsim",
        "docker",
        "dotenv",
        "email",
        "fastapi",
        "httpx",
        "importlib.metadata",
        "jinja2",
        "opentelemetry",
        "prometheus_client",
        "psutil",
        "pydantic",
        "pydantic_core",
        "rich",
        "sentry_sdk",
        "tempfile",
        "textual",
        "uvicorn",
        "uvloop",
        "watchfiles",
        "zipfile",
    }
)
DATABASE = frozenset({"asyncpg", "asyncio", "concurrent.futures", "orjson", "ssl", "workerd.queue.client"})
VERSION = frozenset({"email", "importlib.metadata", "tempfile", "zipfile"})  # read from the package's metadata
SETTINGS = frozenset({"argparse", "workerd.config", "workerd.settings"})
LIGHT = """
import sys

from workerd import task


@task
async def light(n: int) -> list[str]:
    return sorted(sys.modules)
"""
ENQUEUE = ("enqueue", "light", '{"n": 1}', "--priority", "3")


@pytest.fixture
def light(ctl: Ctl) -> Iterator[Ctl]:
    """`workerctl` in a project whose task imports nothing and tells what the daemon did; there is no `.env`."""
    (ctl.directory / "light.py").write_text(LIGHT)
    ctl.environment |= {"TASKS": "light", "APP_DIR": str(ctl.directory)}
    yield ctl
    ctl("stop", "--now")


def probe(ctl: Ctl, *lines: Sequence[str], **environment: str) -> list[tuple[Any, set[str]]]:
    """Exit code and modules of each command line."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(lines)],
        capture_output=True,
        text=True,
        cwd=ctl.directory,
        check=True,
        env={**os.environ, **ctl.environment, **environment},
        timeout=120,
    )
    return [(code, set(modules)) for code, modules in json.loads(done.stdout)]


def intruders(modules: set[str], unwanted: frozenset[str], command: str | None = None) -> list[str]:
    """What should not be there: what is unwanted, and modules of other commands than this."""
    own = set() if command is None else {command.partition(":")[0]}
    others = {TABLE[name][0].partition(":")[0] for name in TABLE} - own
    return sorted(modules & (unwanted | {f"workerctl.commands.{other}" for other in others}))


def test_help_version_and_status_of_a_stopped_daemon_import_no_more_than_they_need(light: Ctl) -> None:
    everything = HEAVY | DATABASE
    cases = [
        (["--help"], 0, everything | SETTINGS, None),
        (["--version"], 0, (everything | SETTINGS) - VERSION, None),
        (["status"], 3, everything, "status"),
        (["status", "--json"], 3, everything - {"orjson"}, "status"),
        (["--name", "other", "health"], 3, everything, "status"),
        (["stop"], 3, everything, "daemon"),
    ]
    told = probe(light, *(words for words, *_ in cases))
    for (words, expected, unwanted, command), (code, modules) in zip(cases, told, strict=True):
        assert (words, code) == (words, expected)
        assert (words, intruders(modules, unwanted, command)) == (words, [])


def test_enqueue_and_status_of_a_running_daemon_import_no_more_than_they_need(light: Ctl) -> None:
    assert light("start", "1").returncode == 0
    cases = [
        (ENQUEUE, HEAVY, "enqueue"),
        (["status", "--json"], HEAVY | DATABASE - {"orjson"}, "status"),
        (["status"], HEAVY - {"rich"} | {"pydantic", "asyncpg", "workerd.queue.client"}, "status"),
        (["scale", "2"], HEAVY | DATABASE, "daemon"),
        (["jobs", "show", "1", "--json"], HEAVY, "jobs"),
    ]
    told = probe(light, *(words for words, *_ in cases))
    for (words, unwanted, command), (code, modules) in zip(cases, told, strict=True):
        assert (words, code) == (words, 0)
        assert (words, intruders(modules, unwanted, command)) == (words, [])


def test_a_daemon_imports_no_more_than_it_needs(light: Ctl) -> None:
    assert light("start", "1").returncode == 0
    job = light(*ENQUEUE).stdout.strip()
    found = set(json.loads(light("jobs", "wait", job).stdout))
    assert "workerd.daemon.daemon" in found
    unwanted = HEAVY - VERSION - {"psutil", "uvloop"} | {"typer", "workerctl", "workerd.remote", "workerd.testing"}
    assert sorted(found & unwanted) == []


def test_no_command_imports_another_ones_modules_to_say_what_it_is(light: Ctl) -> None:
    told = probe(light, *([name, "--help"] for name in TABLE))
    found = {
        name: intruders(modules, HEAVY | DATABASE, TABLE[name][0])
        for name, (_, modules) in zip(TABLE, told, strict=True)
    }
    assert {name: each for name, each in found.items() if each} == {"schedules": ["workerctl.commands.enqueue"]}


def test_completion_of_a_name_imports_the_commands_that_it_may_be(light: Ctl) -> None:
    words = {"_WORKERCTL_COMPLETE": "complete_bash", "COMP_WORDS": "workerctl enq", "COMP_CWORD": "1"}
    [(code, modules)] = probe(light, [], **words)
    assert (code, intruders(modules, HEAVY | DATABASE | SETTINGS, "enqueue")) == (0, [])


@pytest.mark.parametrize("name", TABLE)
def test_the_table_says_of_a_command_what_the_command_says(name: str) -> None:
    place, about = TABLE[name]
    module, _, attribute = place.partition(":")
    found = getattr(importlib.import_module(f"workerctl.commands.{module}"), attribute)
    group: Any = get_command(app)
    command = group.commands[name]
    if isinstance(found, typer.Typer):
        assert command.help == about
    else:
        assert " ".join(command.help.partition("\n\n")[0].split()) == about
        assert make_default_short_help(command.help, 200) == make_default_short_help(about, 200)


def test_every_module_of_commands_is_in_the_table() -> None:
    """Or is part of one that is."""
    group: Any = get_command(app)
    assert isinstance(group, Table)
    assert list(group.commands) == list(TABLE)
    assert all(group.commands[name].name == name for name in TABLE)
