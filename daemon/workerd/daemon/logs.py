"""Where the log goes: files, warnings and errors in one of their own, and standard error."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from workerd.daemon import journal, own_log
from workerd.daemon.log_file import LogFile
from workerd.daemon.log_lines import ConsoleFormatter, JsonFormatter, Origin
from workerd.daemon.parent import BACKGROUND
from workerd.daemon.printed import LogLines
from workerd.errors import ConfigError
from workerd.redact import Redactor

if TYPE_CHECKING:
    from pathlib import Path

    from workerd.config import Settings


def set_up(settings: Settings) -> None:
    """Write all records to the log files and, unless nobody reads it, to standard error. Raises ConfigError."""
    redactor = Redactor(settings)
    files = [_file(settings.log_path, settings), _file(settings.error_log_path, settings)]
    files[1].setLevel(logging.WARNING)
    for file in files:
        file.setFormatter(_formatter(redactor, console=settings.log_format == "console", colours=False))
    unread = BACKGROUND in os.environ or not settings.log_stderr
    own_log.install(files, settings.log_level, None if unread else _console(settings, redactor))
    origin = Origin(settings.node)
    for handler in own_log.handlers():
        handler.addFilter(origin)
    if unread:
        sys.stdout, sys.stderr = LogLines("stdout"), LogLines("stderr")


def reopen() -> None:
    """Close the log files; the next record opens them anew (after an outside rotation)."""
    for handler in own_log.handlers():
        if isinstance(handler, LogFile):
            handler.reopen()


def dump_stacks() -> None:
    """Write the stacks of all threads and asyncio tasks to the log."""
    logging.getLogger(__name__).warning("%s", stacks(asyncio.get_running_loop()))


def stacks(loop: asyncio.AbstractEventLoop) -> str:
    """The stacks of all threads, and of the tasks of a loop."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for ident, frame in sys._current_frames().items():
        lines += [f"thread {names.get(ident, ident)}:", *traceback.format_stack(frame)]
    for task in asyncio.all_tasks(loop):
        stack = io.StringIO()
        task.print_stack(file=stack)
        lines += [f"task {task.get_name()}:", stack.getvalue()]
    return "stacks of all threads and tasks:\n" + "\n".join(lines)


def _formatter(redactor: Redactor, *, console: bool, colours: bool) -> logging.Formatter:
    return ConsoleFormatter(redactor, colours=colours) if console else JsonFormatter(redactor)


def _console(settings: Settings, redactor: Redactor) -> logging.Handler:
    """Standard error, in the format that was asked for, else as fits a terminal or a file."""
    terminal = sys.stderr.isatty()
    console = settings.log_format == "console" or (settings.log_format is None and terminal)
    handler = logging.StreamHandler(sys.stderr)
    formatter = _formatter(redactor, console=console, colours=terminal and "NO_COLOR" not in os.environ)
    handler.setFormatter(journal.Graded(formatter) if journal.reads(sys.stderr) else formatter)
    return handler


def _file(path: Path, settings: Settings) -> LogFile:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return LogFile(path, settings.log_max_size, settings.log_keep)
    except OSError as error:
        raise ConfigError(
            f"the log file {path} cannot be written: {error.strerror} (set LOG_DIR to a writable directory)"
        ) from error
