"""Environments of peers: made once with pip or npm in the user's cache, of pinned versions."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from workerd.errors import WorkerdError

if TYPE_CHECKING:
    from collections.abc import Sequence

INSTALL_LIMIT = 300.0  # seconds
MADE = "made.json"  # written last: an environment without it, or with another list in it, is made anew
NODE = "node@22.23.3"  # npm's own package of the runtime, where that of the system is too old
NODE_OLDEST = (22, 18)  # what graphile-worker asks for


class UnavailableError(WorkerdError):
    """A peer cannot be installed here."""


async def python(name: str, requirements: Sequence[str]) -> list[str]:
    """The command of an interpreter that has these."""
    folder = _folder(name)
    command = folder / "bin/python"
    if not _is_made(folder, requirements):
        await _run([sys.executable, "-m", "venv", str(folder)])
        await _run([str(command), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
        _say_made(folder, requirements)
    return [str(command)]


async def node(name: str, packages: Sequence[str]) -> tuple[list[str], Path]:
    """The command of a Node.js that is new enough, and the folder in which it finds these packages."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise UnavailableError("there is no node and npm here")
    found = re.match(r"v(\d+)\.(\d+)", await _run(["node", "--version"]))
    old = found is None or (int(found[1]), int(found[2])) < NODE_OLDEST
    wanted = [*packages, NODE] if old else list(packages)
    folder = _folder(name)
    if not _is_made(folder, wanted):
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true}\n')
        await _run(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel=error", *wanted])
        _say_made(folder, wanted)
    return [str(folder / "node_modules/.bin/node") if old else "node"], folder


def _folder(name: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "workerd/bench" / name


def _is_made(folder: Path, wanted: Sequence[str]) -> bool:
    """Whether it is complete; what is not is removed."""
    try:
        if json.loads((folder / MADE).read_text()) == list(wanted):
            return True
    except (OSError, ValueError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _say_made(folder: Path, wanted: Sequence[str]) -> None:
    (folder / MADE).write_text(json.dumps(list(wanted)))


async def _run(command: Sequence[str]) -> str:
    """What it prints. Raises UnavailableError with the last line of its errors."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(INSTALL_LIMIT):
            output, errors = await process.communicate()
    except TimeoutError as error:
        raise UnavailableError(f"{command[0]} took more than {INSTALL_LIMIT:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = (errors or output).decode(errors="replace").strip().splitlines()[-1:] or ["it gave no reason"]
        raise UnavailableError(f"{Path(command[0]).name} failed: {last[0]}")
    return output.decode()
