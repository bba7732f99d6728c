"""The daemon's own log, whatever the application does with Python's logging.

Applications configure logging as if the process were theirs: they take every handler off the root, disable the loggers that exist, set
levels. What writes this log is therefore no part of what they can configure: it stands where each logger hands its records to handlers.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

OURS = "workerd"
JOB = "job"  # the logger of what jobs say with job.log

_handlers: list[logging.Handler] = []
_console: list[logging.Handler] = []  # the one that writes to standard error, if there is one
_level = logging.INFO


class _Handing(threading.local):
    """Whether this thread hands a record to handlers of the application."""

    active = False


_handing = _Handing()


class OwnLogger(logging.Logger):
    """A logger of this package: LOG_LEVEL alone decides what it lets through, and it raises nothing."""

    @property
    def disabled(self) -> bool:
        """Never: dictConfig and fileConfig disable what they do not name."""
        return False

    @disabled.setter
    def disabled(self, _value: bool) -> None:
        pass

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - its name in logging
        return level >= _level

    def filter(self, _record: logging.LogRecord) -> bool:
        return True

    def makeRecord(self, *parts: Any, **more: Any) -> logging.LogRecord:  # noqa: N802
        try:
            return super().makeRecord(*parts, **more)
        except Exception:  # noqa: BLE001 - of the record factory of an application
            name, level, file, line, message, arguments, raised, *_ = parts
            return logging.LogRecord(name, level, file, line, message, arguments, raised)


def install(handlers: Sequence[logging.Handler], level: int | str, console: logging.Handler | None = None) -> None:
    """Write every record of the process with these handlers, whatever others there are; `console` writes to standard error."""
    _handlers[:] = handlers
    _console[:] = [] if console is None else [console]
    root = logging.getLogger()
    root.handlers.clear()
    root.setLevel(level)
    set_level(level)
    logging.raiseExceptions = False  # a full disk must not stop the work
    logging.Logger.callHandlers = _hand_on  # type: ignore[method-assign, assignment]
    manager = logging.Logger.manager
    for name, logger in manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and _is_ours(name):
            logger.__class__ = OwnLogger
    manager.loggerClass = _new_logger  # type: ignore[assignment]  # for modules that are imported later


def is_installed() -> bool:
    return bool(_handlers)


def add(handler: logging.Handler) -> None:
    """Let a further handler of ours have every record."""
    _handlers.append(handler)


def handlers() -> list[logging.Handler]:
    """What writes the log."""
    return _handlers + _console


def level() -> int:
    return _level


def set_level(level: int | str) -> None:
    """From now on let through what is at least as grave; the application's loggers follow unless it has set a level of its own."""
    global _level
    root = logging.getLogger()
    follows = root.level == _level
    _level = logging.getLevelNamesMapping()[level] if isinstance(level, str) else level
    if follows:
        root.setLevel(_level)


def write(record: logging.LogRecord) -> None:
    """Write the record, and hand it to no handler of the application."""
    for handler in handlers():
        if record.levelno >= handler.level:
            handler.handle(record)


def is_shown() -> bool:
    """Whether what this thread prints now is a record that the log has: a handler of the application prints it."""
    return _handing.active


def _hand_on(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Takes the place of `Logger.callHandlers`: into the log first, then to the handlers of the application.

    A record that is made by such a handler goes into the log alone: it would come round to that handler again.
    """
    own = isinstance(logger, OwnLogger)
    theirs = [] if _handing.active else _handlers_of(logger, record)
    shown = theirs and not own and any(_prints(handler) for handler in theirs)
    for handler in _handlers if shown else handlers():
        if record.levelno >= handler.level:
            handler.handle(record)
    if not theirs:
        return
    _handing.active = True
    try:
        for handler in theirs:
            if not own:
                handler.handle(record)
            elif not _prints(handler):  # our console shows it already
                with contextlib.suppress(Exception):  # a mistake of theirs ends nothing of ours
                    handler.handle(record)
    finally:
        _handing.active = False


def _handlers_of(logger: logging.Logger, record: logging.LogRecord) -> list[logging.Handler]:
    """The handlers of the application that take the record."""
    found: list[logging.Handler] = []
    current: logging.Logger | None = logger
    while current is not None:
        if current.handlers:
            found += (handler for handler in current.handlers if record.levelno >= handler.level)
        current = current.parent if current.propagate else None
    return found


def _prints(handler: logging.Handler) -> bool:
    """Whether it writes to the standard streams."""
    stream = getattr(handler, "stream", None)
    return stream is not None and stream in (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)


def _is_ours(name: str) -> bool:
    return name in (OURS, JOB) or name.startswith(f"{OURS}.")


def _new_logger(name: str) -> logging.Logger:
    return (OwnLogger if _is_ours(name) else logging.getLoggerClass())(name)
