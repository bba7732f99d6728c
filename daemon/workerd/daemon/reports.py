"""Reports of errors to Sentry, or to what speaks its protocol: jobs that have failed, and what goes wrong in the daemon itself."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from sentry_sdk import Client
from sentry_sdk.transport import HttpTransport

from workerd import __version__
from workerd.daemon.endings import describe
from workerd.daemon.per_second import PerSecond
from workerd.fingerprint import fingerprint, not_theirs
from workerd.redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workerd.settings import Settings
    from workerd.tasks import Task

MOST = 10  # reports in a second: making one takes about a millisecond of the loop
LAST_REPORTS = 1.5  # seconds that reports may take when the process ends
AGAIN = 600.0  # seconds after which trouble that lasts is said again

_FRAME = re.compile(
    r'^ +File "(?P<file>.+)", line (?P<line>\d+), in (?P<function>.+)\n(?: {4,}(?P<code>\S.*))?', re.MULTILINE
)
_NAME = re.compile(r"[A-Za-z_][\w.]*")

log = logging.getLogger(__name__)


class Reports(logging.Handler):
    """Of what the daemon's own parts log as an error; what handlers log is theirs."""

    def __init__(self, settings: Settings, tasks: Mapping[str, Task[..., Any]]) -> None:
        super().__init__()
        self._tasks = tasks
        self._redact = Redactor(settings)
        self._node = settings.node
        self._recent = PerSecond()
        self._client = Client(
            dsn=settings.sentry_dsn,
            release=os.environ.get("SENTRY_RELEASE") or f"workerd@{__version__}",
            server_name=settings.node,
            default_integrations=False,
            include_local_variables=False,
            transport=Transport,
            shutdown_timeout=LAST_REPORTS,
        )
        logging.getLogger("urllib3.connectionpool").addFilter(_is_not_ours)

    def emit(self, record: logging.LogRecord) -> None:
        """Send it from another thread; before the process ends, wait for that, though not for long."""
        if not self._is_wanted(record) or self._recent.add() > MOST:
            return
        try:
            self._client.capture_event(self._event(record))  # type: ignore[arg-type]  # its type is one of a dict
            if record.levelno >= logging.CRITICAL:
                self._client.flush(timeout=LAST_REPORTS)
        except Exception:  # noqa: BLE001 - as every handler of logging does
            self.handleError(record)

    def close(self) -> None:
        """Let the last ones go; logging does this when the process ends."""
        self._client.close(timeout=LAST_REPORTS)
        super().close()

    def _is_wanted(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("workerd") or record.name == __name__:
            return False
        task = self._tasks.get(getattr(record, "task", ""))
        is_error = record.levelno >= logging.ERROR or getattr(record, "stall", False)
        return is_error and not (task is not None and task.sensitive)

    def _event(self, record: logging.LogRecord) -> dict[str, Any]:
        about = {name: getattr(record, name, None) for name in ("task", "queue", "job", "attempt")}
        tags = {name: str(value) for name, value in about.items() if value is not None}
        raised = record.exc_info[1] if record.exc_info else None
        error = self._redact(getattr(record, "error", None) or (describe(raised) if raised is not None else ""))
        said = self._redact(record.getMessage())
        frames = [_frame(match) for match in _FRAME.finditer(error.rpartition("Traceback (most recent call last):")[2])]
        same = fingerprint(error or said.partition("\n")[0])
        event: dict[str, Any] = {
            "level": "fatal" if record.levelno >= logging.CRITICAL else record.levelname.lower(),
            "logger": record.name,
            "timestamp": record.created,
            "tags": {**tags, "node": self._node},
            "fingerprint": [tags.get("task", record.name), same],
        }
        if "task" in tags:
            event["transaction"] = tags["task"]
        if frames:
            kind, _, message = error.partition("\n")[0].partition(": ")
            value = {
                "type": kind if _NAME.fullmatch(kind) else "Error",
                "value": message,
                "stacktrace": {"frames": frames},
            }
            event["exception"] = {"values": [value]}
            event["extra"] = {"log": said.partition("\n")[0]}
        else:
            event["logentry"] = {"formatted": said}
        return event


def _frame(match: re.Match[str]) -> dict[str, Any]:
    file = match["file"]
    return {
        "abs_path": file,
        "filename": Path(file).name,
        "function": match["function"],
        "lineno": int(match["line"]),
        "context_line": match["code"],
        "in_app": not file.startswith(not_theirs()),
    }


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Whether a line about a connection is of something else than reports, which say it themselves, once."""
    return not record.getMessage().endswith("/envelope/")


class Transport(HttpTransport):
    """Says once that reports are not taken."""

    _said = 0.0  # monotonic; 0: not yet

    def on_dropped_event(self, reason: str) -> None:
        if not self._said or monotonic() > self._said + AGAIN:
            self._said = monotonic()
            log.warning(
                "errors: %s does not take reports, they are lost: %s",
                self.parsed_dsn and self.parsed_dsn.netloc,
                reason,
            )
