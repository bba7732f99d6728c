"""The front door of workerctl: one line for each error, and the exit code that scripts rely on."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any

from workerd.errors import ConfigError, NotRunning, TaskError, WorkerdError

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED, USAGE, NOT_RUNNING = 1, 2, 3
TOP_LEVEL = ("--help", "-h", "--version", "--install-completion", "--show-completion")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; exits 0 fine, 1 failed, 2 wrong usage, 3 not running."""
    gc.set_threshold(50_000, 20, 50)  # what imports make stays: looking for garbage in it is a tenth of a short command
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()
    except ConfigError as error:
        code = _fail(error.problems, USAGE)
    except NotRunning as error:
        code = _fail((str(error),), NOT_RUNNING)
    except WorkerdError as error:
        code = _fail((str(error),), USAGE if isinstance(error, TaskError) else FAILED)
    except KeyboardInterrupt:
        code = 130
    except OSError as error:  # a full disk, a terminal that has gone, a directory in place of a file
        code = 0 if isinstance(error, BrokenPipeError) else _fail((str(error),), FAILED)
        _drop_output()
    gc.freeze()  # the interpreter looks for garbage once more at its end: the process's memory goes anyway
    sys.exit(code)


def _run(words: list[str]) -> int:
    from workerctl import context
    from workerctl.app import app

    asks_help = not words or words[0] in TOP_LEVEL or "_WORKERCTL_COMPLETE" in os.environ
    rest = words if asks_help else context.take_settings(words)
    try:
        code: Any = app(rest, prog_name="workerctl", standalone_mode=False)
    except Exception as error:
        if type(error).__name__ == "Abort":
            return _fail(("nothing was done",), FAILED)
        if type(error).__module__.startswith("asyncpg"):  # what the database refuses and nobody foresaw
            return _fail((f"the database refused it: {error}",), FAILED)
        if not hasattr(error, "format_message"):  # what typer raises for wrong usage has it
            raise
        from workerctl.usage import told

        text = told(error)
        if text.startswith("Usage:"):  # a group without a command: its help
            sys.stderr.write(f"{text}\n")
            return USAGE
        return _fail((f"{text} (see workerctl --help)",), USAGE)
    return code if isinstance(code, int) else 0


def _drop_output() -> None:
    """Nothing more can be written: without this the interpreter would try at its exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(lines: Sequence[str], code: int) -> int:
    for line in lines:
        print("workerctl:", " ".join(line.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
