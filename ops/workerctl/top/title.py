"""The title of a pane, behind which it says what has just been done, or what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

if TYPE_CHECKING:
    from textual.timer import Timer
    from textual.widget import Widget

SAID = 6.0  # seconds for which an answer stays


class Title:
    """`name` is what the pane is about."""

    def __init__(self, pane: Widget, name: str) -> None:
        self._pane = pane
        self._name = name
        self._about = ""
        self._trouble = ""
        self._answer = ""
        self._forgets: Timer | None = None
        self._show()

    def about(self, text: str, trouble: str = "") -> None:
        """Say more; `trouble`: why what is shown is not of now."""
        self._about, self._trouble = text, trouble
        self._show()

    def trouble(self, text: str) -> None:
        """Why what is shown is not of now."""
        self.about(self._about, text)

    def answer(self, text: str) -> None:
        """Say for a while what came of a key."""
        self._answer = text
        self._show()
        if self._forgets is not None:
            self._forgets.stop()
        self._forgets = self._pane.set_timer(SAID, self._forget)

    def _forget(self) -> None:
        self._answer = ""
        self._show()

    def _show(self) -> None:
        title = self._name if self._answer else f"{self._name} {self._about}".rstrip()
        more = self._answer or self._trouble
        self._pane.border_title = escape(f"{title}: {more}" if more else title)
