"""Before the first start: config, init."""

from __future__ import annotations

from typing import Annotated

import typer

from workerctl import context, render

TASKS = '''"""Tasks of this project. Run them: workerctl start --tasks tasks; enqueue one: workerctl enqueue hello '{"name": "you"}'."""

from workerd import Job, Retry, task


@task(queue="default", retry=Retry(max=3, interval=60), timeout="5m")
async def hello(name: str, *, job: Job) -> str:
    await job.progress(0.5, "thinking")
    return f"Hello {name}"
'''
TEST = """import asyncio
from unittest.mock import AsyncMock

from tasks import hello


def test_hello_greets() -> None:
    assert asyncio.run(hello("you", job=AsyncMock())) == "Hello you"
"""
ENV = """# Settings of the daemon; `workerctl config` shows all of them.
# DATABASE_URL=postgresql://user:password@localhost/app   (without it: an embedded PostgreSQL)
TASKS=tasks
WORKERS=2
"""
FILES = {"tasks.py": TASKS, "test_tasks.py": TEST, ".env": ENV}


def config(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Every setting, its value and where it came from; secrets masked.

    Example: workerctl config --workers 4
    """
    from workerd import libraries

    loaded = context.configuration()
    rows = [(name.upper(), loaded.shown(name), loaded.sources[name]) for name in loaded.sources]
    rows += [(name, libraries.shown(name, each.value), each.source) for name, each in loaded.libraries.items()]
    if as_json:
        render.json({name: {"value": value, "source": source} for name, value, source in rows})
    else:
        render.table("settings", ("setting", "value", "from"), rows)
    for warning in loaded.warnings:
        render.warn(warning)


def init() -> None:
    """Begin a project here: tasks.py, .env and a test.

    Example: mkdir shop && cd shop && workerctl init
    """
    from pathlib import Path

    from workerd.errors import ConfigError

    here = Path.cwd()
    present = [name for name in FILES if (here / name).exists()]
    if present:
        raise ConfigError(f"{', '.join(present)} exist here already: nothing was written")
    try:
        for name, text in FILES.items():
            (here / name).write_text(text)
    except OSError as error:
        raise ConfigError(f"{here} is not writable: {error.strerror}") from error
    render.say(f'wrote {", ".join(FILES)}; now: workerctl start && workerctl enqueue hello \'{{"name": "you"}}\'')
