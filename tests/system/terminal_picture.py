"""Makes docs/run.svg, what `make run` shows on a terminal, as the README has it: `python tests/system/terminal_picture.py`."""

from __future__ import annotations

import io
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent.parent
COLUMNS = 118
FONTS = re.compile(r"@font-face \{.*?\}\n", re.DOTALL)  # they would be loaded from elsewhere


def shown(state: Path) -> str:
    """What the command prints on a terminal of that width, with its colours; it works below `state`."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    with subprocess.Popen(
        ["make", "--silent", "run", f"STATE={state}"], cwd=ROOT, env=environment, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        said = bytearray()
        while True:
            try:
                said += os.read(ours, 65536)
            except OSError:  # the terminal is closed: it has ended
                break
    os.close(ours)
    if process.returncode:
        sys.exit(said.decode())
    lines = said.decode().splitlines()
    return "\n".join(line for line in lines if not line.startswith("make: "))  # of clocks that differ, say


def main() -> None:
    state = Path(tempfile.mkdtemp(prefix="workerd-"))
    state.chmod(0o755)
    try:
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
        console.print(Text.from_ansi(f"$ make run\n{shown(state)}"), end="")
        picture = FONTS.sub("", console.export_svg(title="workerd"))
        (ROOT / "docs" / "run.svg").write_text(picture, encoding="utf-8")
    finally:
        subprocess.run(["make", "--silent", "stop", f"STATE={state}"], cwd=ROOT, check=False)
        shutil.rmtree(state)


if __name__ == "__main__":
    main()
