"""A process of the benchmark, which tells in JSON lines on its output what happened and when."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from workerd import config
from workerd.daemon.children.death import cause
from workerd.errors import WorkerdError
from workerd.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEAR_LIMIT = 120.0  # seconds
STOP_LIMIT = 20.0  # seconds
LINE_LIMIT = 2**26  # bytes: the start of each job of a measurement is one line


class ContenderError(WorkerdError):
    """A process ended, or did not do what was asked of it."""


class Process:
    """Runs within `async with`. Each line is an object with `event` and `at`, in seconds of the machine's monotonic clock."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], name: str) -> None:
        self._command = command
        self._folder = folder
        self._environment = environment
        self._name = name
        self._heard: dict[str, dict[str, Any]] = {}

    async def __aenter__(self) -> Self:
        with self._errors.open("wb") as errors:
            # A session of its own: Ctrl-C is ours to handle.
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=LINE_LIMIT,
                cwd=self._folder,
                env={**_environment(), **self._environment},
                start_new_session=True,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ask it to end; kill it when it does not."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_LIMIT):
                await self._process.communicate()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def tell(self, do: str, **arguments: Any) -> None:
        """Send a command."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        with suppress(ConnectionError):  # why it ended is found when its answer is read
            await self._process.stdin.drain()

    async def hear(self, event: str) -> dict[str, Any]:
        """Wait for an event and take it; others are kept until they are asked for. Raises ContenderError."""
        assert self._process.stdout
        try:
            async with asyncio.timeout(HEAR_LIMIT):
                while event not in self._heard:
                    line = await self._process.stdout.readline()
                    if not line.endswith(b"\n"):  # the last words of one that was ended may be cut off
                        await self._process.wait()
                        self.check()
                    said = json.loads(line)
                    self._heard[said["event"]] = said
        except TimeoutError as error:
            raise ContenderError(
                f"{self._name} did not say {event} within {HEAR_LIMIT:.0f} s: {self.last_words()}"
            ) from error
        return self._heard.pop(event)

    def check(self) -> None:
        """Raises ContenderError when it has ended."""
        if self._process.returncode is not None:
            raise ContenderError(f"{self._name} ended, {cause(self._process.returncode)}: {self.last_words()}")

    def peak_mb(self) -> float:
        """The most resident memory that it has had, in megabytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        kilobytes = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert kilobytes
        return int(kilobytes[1]) * 1024 / 1e6

    def last_words(self) -> str:
        """The last line of its standard error."""
        return last_line(self._errors)

    @property
    def _errors(self) -> Path:
        return self._folder / f"{self._name}.stderr"


def last_line(path: Path) -> str:
    """What it said last."""
    with suppress(OSError, IndexError):
        return path.read_text(errors="replace").rstrip().splitlines()[-1]
    return "it left no message"


def _environment() -> dict[str, str]:
    """Ours without settings: what the benchmark measures must not hang on who calls it."""
    known = {key for name in Settings.model_fields for key in config.names(name)}
    return {key: value for key, value in os.environ.items() if key.upper().removeprefix("WORKERD_") not in known}
