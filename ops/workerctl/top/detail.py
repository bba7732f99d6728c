"""One job, with its error and its attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import orjson
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from workerctl.render import brief

if TYPE_CHECKING:
    from textual.app import ComposeResult

PLAIN = ("task", "queue", "state", "priority", "attempt", "retries_left", "key", "node", "progress", "message")
TIMES = ("enqueued_at", "run_at", "started_at", "finished_at")


class Detail(ModalScreen[None]):
    """As `jobs show` has it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter", "dismiss", "Close")]

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__()
        self._job = job

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="box whole") as box:
            box.border_title = f"job {self._job['id']}"
            box.border_subtitle = "Esc closes, arrows scroll"
            yield Static(self._text(), markup=False)

    def _text(self) -> Text:
        job = self._job
        pairs = [(name, job.get(name)) for name in PLAIN]
        pairs += [(name, brief(job[name]) or None) for name in TIMES]
        pairs += [(name, orjson.dumps(job[name]).decode()) for name in ("payload", "result") if job[name] is not None]
        lines = [f"{name:<13} {value}" for name, value in pairs if value is not None]
        for each in job["attempts"]:
            first = (each["error"] or "").partition("\n")[0]
            lines.append(
                f"attempt {each['attempt']:<5} {brief(each['started_at'])} {each['node']} {each['outcome']} {first}"
            )
        return Text("\n".join([*lines, *(["", job["error"]] if job["error"] else [])]))
