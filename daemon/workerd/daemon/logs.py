"""Log files and formats: one line a record, for people or as JSON; errors in a file of their own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import sys
import threading
import traceback
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING

import orjson

from workerd.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from workerd.config import Settings

BACKGROUND = "WORKERD_BACKGROUND"  # set by `workerctl start`: standard error is nobody's
_PLAIN = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
_COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, message and what the record carries beside."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key not in _PLAIN},
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(fields, default=str).decode()
        except TypeError:  # large numbers, other keys than text, lone surrogates: rare, and slower
            return json.dumps(fields, default=str, skipkeys=True)


class ConsoleFormatter(logging.Formatter):
    """Time, level and message; colours only on a terminal."""

    def __init__(self, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        line = f"{moment} {record.levelname:<8}{record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        colour = _COLOURS.get(record.levelno) if self._colours else None
        return f"\x1b[{colour}m{line}\x1b[0m" if colour else line


class _Rotating(RotatingFileHandler):
    """Also keeps to its size when no old file is to be kept."""

    def doRollover(self) -> None:  # noqa: N802 - logging's name
        if not self.backupCount and self.stream:
            self.stream.truncate(0)
        super().doRollover()


def set_up(settings: Settings) -> None:
    """Send the root logger to the log files and, unless in the background, to standard error. Raises ConfigError."""
    root = logging.getLogger()
    root.setLevel(settings.log_level)
    logging.raiseExceptions = False  # a full disk must not stop the work
    kind = settings.log_format
    files = [_file(settings.log_path, settings), _file(settings.error_log_path, settings)]
    files[1].setLevel(logging.WARNING)
    for handler in files:
        handler.setFormatter(ConsoleFormatter(colours=False) if kind == "console" else JsonFormatter())
    handlers: list[logging.Handler] = [*files]
    if BACKGROUND not in os.environ:
        console = logging.StreamHandler(sys.stderr)
        terminal = sys.stderr.isatty()
        plain = kind == "console" or (kind is None and terminal)
        console.setFormatter(
            ConsoleFormatter(colours=terminal and "NO_COLOR" not in os.environ) if plain else JsonFormatter()
        )
        handlers.append(console)
    root.handlers[:] = handlers
    if BACKGROUND in os.environ:
        sys.stdout = LogLines(logging.getLogger("stdout"))
        sys.stderr = LogLines(logging.getLogger("stderr"))


class LogLines(io.TextIOBase):
    """What handlers print, as records of the log, one a line: a daemon in the background has no other place for it."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._logger.info("%s", line)
        return len(text)


def reopen() -> None:
    """Close the log files; the next record opens them anew (after an outside rotation)."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.acquire()
            try:
                with contextlib.suppress(OSError, ValueError):  # what could not be written before cannot be now
                    handler.close()
            finally:
                handler.release()


def dump_stacks() -> None:
    """Write the stacks of all threads and asyncio tasks to the log."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for ident, frame in sys._current_frames().items():
        lines += [f"thread {names.get(ident, ident)}:", *traceback.format_stack(frame)]
    for task in asyncio.all_tasks():
        stack = io.StringIO()
        task.print_stack(file=stack)
        lines += [f"task {task.get_name()}:", stack.getvalue()]
    logging.getLogger(__name__).warning("stacks of all threads and tasks:\n%s", "\n".join(lines))


def _file(path: Path, settings: Settings) -> logging.FileHandler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _Rotating(
            path,
            maxBytes=settings.log_max_size,
            backupCount=settings.log_keep,
            encoding="utf-8",
            errors="backslashreplace",
        )
    except OSError as error:
        raise ConfigError(
            f"the log file {path} cannot be written: {error.strerror} (set LOG_DIR to a writable directory)"
        ) from error
