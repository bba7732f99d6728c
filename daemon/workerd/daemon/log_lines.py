"""Log lines: what each carries, and its two formats, for people or as JSON; no secret is in either."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from workerd.daemon import current

if TYPE_CHECKING:
    from workerd.redact import Redactor

_PLAIN = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
_COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}


class Origin(logging.Filter):
    """Gives each record the node, and the job, task and attempt within which it was logged."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def filter(self, record: logging.LogRecord) -> bool:
        record.node = self._node
        attempt = current.attempt.get()
        if attempt is not None and not hasattr(record, "job"):
            record.job, record.task, record.attempt = attempt
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, node, in a run job, task and attempt, message, and what the record carries beside."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        carried = vars(record)
        fields: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            **{key: carried[key] for key in ("node", "job", "task", "attempt") if key in carried},
            "message": record.getMessage(),
        }
        fields.update({key: value for key, value in carried.items() if key not in _PLAIN and key not in fields})
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        try:
            line = orjson.dumps(fields, default=str).decode()
        except TypeError:  # large numbers, other keys than text, lone surrogates: rare, and slower
            line = json.dumps(fields, default=str, skipkeys=True)
        return self._redactor(line)


class ConsoleFormatter(logging.Formatter):
    """Time, level, in a run job and attempt, message; colours only on a terminal."""

    def __init__(self, redactor: Redactor, *, colours: bool) -> None:
        super().__init__()
        self._redactor = redactor
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        line = f"{moment} {record.levelname:<7} {_within(record)}{record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        line = self._redactor(line)
        colour = _COLOURS.get(record.levelno) if self._colours else None
        return f"\x1b[{colour}m{line}\x1b[0m" if colour else line


def _within(record: logging.LogRecord) -> str:
    """`[job 7 ocr #2]`: the attempt that the line is about."""
    job, task, attempt = (vars(record).get(name) for name in ("job", "task", "attempt"))
    if job is None:
        return ""
    return f"[job {job}{f' {task}' if task else ''}{f' #{attempt}' if attempt else ''}] "
