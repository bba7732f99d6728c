"""Reading systemd's journal: the last lines of a unit, and those that come."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from workerd.errors import WorkerdError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Journal:
    """The lines of one unit, as `journalctl -u` shows them; `errors`: warnings and errors only."""

    def __init__(self, unit: str, *, errors: bool = False) -> None:
        self._command = ["journalctl", "--no-pager", "--quiet", "--unit", unit]
        self._errors = ["--priority", "warning"] if errors else []

    def end(self) -> str | None:
        """The cursor of the last line; None where there is none, or none that we may read."""
        text = _run([*self._command, "--lines", "1", "--output", "json"])
        return json.loads(text)["__CURSOR"] if text else None

    def last(self, end: str, most: int, wanted: Callable[[str], bool]) -> list[str]:
        """The last `most` lines up to a cursor that are wanted, oldest first."""
        found: list[str] = []
        if most:
            for line in self._lines("--reverse", "--cursor", end):
                if wanted(line):
                    found.append(line)
                    if len(found) == most:
                        break
        return found[::-1]

    def new(self, end: str | None, wanted: Callable[[str], bool]) -> Iterator[str]:
        """The lines after a cursor and those that come, for ever."""
        since = ["--after-cursor", end, "--no-tail"] if end is not None else ["--lines", "0"]
        return filter(wanted, self._lines("--follow", *since))

    def since(self, moment: float) -> list[str]:
        """All lines since a moment, in seconds of the epoch, that we may read."""
        return _run([*self._command, "--since", f"@{moment:.3f}", "--output", "cat"]).splitlines()

    def _lines(self, *options: str) -> Iterator[str]:
        command = [*self._command, *self._errors, "--output", "cat", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as journalctl:
            assert journalctl.stdout is not None
            try:
                for line in journalctl.stdout:
                    yield line.rstrip("\n")
            finally:
                journalctl.terminate()


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if "permission" in done.stderr:
        raise WorkerdError("you may not read the journal: be root or a member of the group systemd-journal")
    return done.stdout
