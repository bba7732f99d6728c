"""A terminal, of 80 columns unless told otherwise: what a person sees of a command."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.support import until

if TYPE_CHECKING:
    from types import TracebackType


class Terminal:
    """One command in a tmux of its own; what it printed stays readable when it has ended."""

    def __init__(self, command: list[str], lines: int = 40, columns: int = 80) -> None:
        if shutil.which("tmux") is None:
            pytest.skip("there is no tmux here: apt install tmux")
        self._name = f"tests-{uuid4().hex[:8]}"
        self._command = command
        self._lines = lines
        self._columns = columns

    def __enter__(self) -> Terminal:
        size = ("-x", str(self._columns), "-y", str(self._lines))
        self._tmux("new-session", "-d", *size, f"{shlex.join(self._command)}; exec cat")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tmux("kill-server")

    def type(self, *keys: str) -> None:
        """Press keys, as tmux names them."""
        self._tmux("send-keys", *keys)

    def screen(self) -> list[str]:
        """The lines as they stand there."""
        return self._captured()

    def lines(self) -> list[str]:
        """The same, with those put together that the terminal broke because they were too long for it."""
        return self._captured("-J")

    async def until_shows(self, text: str) -> None:
        async def look() -> bool:
            return any(text in line for line in self.lines())

        await until(look, f"the terminal shows {text!r}")

    def _captured(self, *options: str) -> list[str]:
        return [line.rstrip() for line in self._tmux("capture-pane", "-p", *options).rstrip().splitlines()]

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-L", self._name, "-f", "/dev/null", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
