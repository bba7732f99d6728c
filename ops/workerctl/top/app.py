"""The dashboard."""

from __future__ import annotations

import asyncio
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import DataTable, Footer

from workerctl.commands.status import together
from workerctl.top.confirm import Confirm
from workerctl.top.detail import Detail
from workerctl.top.head import Head
from workerctl.top.jobs import Jobs
from workerctl.top.log import Log
from workerctl.top.queues import Queues
from workerctl.top.throughput import Throughput
from workerctl.top.workers import Workers
from workerd.errors import WorkerdError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from textual.app import ComposeResult

    from workerctl.top.source import Source
    from workerctl.top.table import Table

EVERY = 1.0  # seconds between two looks
# A look may take one part in so many of the time, and this many seconds at most lie between two: counting long queues takes a while.
SHARE, SLOWEST = 10, 5.0


class Top(App[None]):
    """Three loops look at the daemon, the database and the log, so that none waits for another; keys act on what is under the cursors."""

    CSS_PATH = "top.tcss"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 - declared so by Textual
    VERTICAL_BREAKPOINTS = [(0, "-short"), (36, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("plus,+", "scale(1)", "Scale up", key_display="+"),
        Binding("minus,-", "scale(-1)", "down", key_display="-"),
        Binding("p", "pause", "Pause"),
        Binding("r", "retry", "Retry"),
        Binding("f", "turn", "All/failed"),
        Binding("d", "drain", "Drain"),
        Binding("tab", "app.focus_next", "Pane", key_display="tab"),
    ]

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._told: dict[str, Any] | None = None
        self._answered_at = ""  # when the database did

    def compose(self) -> ComposeResult:
        yield Head(self._source.runtime.settings, self._source.runtime.name)
        with Horizontal(id="upper"):
            yield Workers("workers")
            yield Queues("queues")
        yield Throughput()
        yield Jobs("jobs")
        yield Log()
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.query_one(Jobs).focus()
        for look in (self._look_at_daemon, self._look_at_database, self._look_at_log):
            self._again(look)

    async def on_unmount(self) -> None:
        await self._source.close()

    @work
    async def _again(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            began = monotonic()
            await look()
            await asyncio.sleep(max(EVERY, min(SLOWEST, SHARE * (monotonic() - began))))

    async def _look_at_daemon(self) -> None:
        trouble = ""
        try:
            told = await self._source.daemon()
        except (WorkerdError, OSError) as error:
            told, trouble = [], str(error)
        self._told = together(told) if told else None
        self.query_one(Head).show_daemon(self._told, trouble)
        self.query_one(Throughput).show_daemon(self._told)
        self.query_one(Workers).show_daemon(self._told)

    async def _look_at_database(self) -> None:
        queues, jobs, head = self.query_one(Queues), self.query_one(Jobs), self.query_one(Head)
        try:
            state = jobs.state
            found = await self._source.queues(), await self._source.jobs(state)
        except (WorkerdError, OSError) as error:
            head.show_database(str(error))
            for pane in (queues, jobs):
                pane.is_old(self._answered_at)
            return
        self._answered_at = f"{datetime.now().astimezone():%H:%M:%S}"
        head.show_database("")
        queues.show_queues(found[0])
        if state == jobs.state:
            jobs.show_jobs(found[1])

    async def _look_at_log(self) -> None:
        try:
            records, missing = await self._source.log()
        except (WorkerdError, OSError) as error:
            records, missing = [], str(error)
        self.query_one(Log).show_log(records, missing)

    def action_scale(self, step: int) -> None:
        """More workers, or fewer."""
        if self._told is not None and "workers" in self._told:
            count = self._told["workers"] + step
            self._tell(self.query_one(Workers), lambda: self._scaled(count))

    def action_pause(self) -> None:
        """Pause the queue under the cursor, or resume it."""
        queues = self.query_one(Queues)
        name = queues.selected
        if name is not None:
            self._tell(queues, lambda: self._paused(name, paused=not queues.is_paused(name)))

    def action_retry(self) -> None:
        """Retry the job under the cursor."""
        job = self.query_one(Jobs).selected
        if job is not None:
            self._tell(self.query_one(Jobs), lambda: self._retried(int(job)))

    async def action_turn(self) -> None:
        """All jobs, or those that failed."""
        self.query_one(Jobs).turn()
        await self._look_at_database()

    def action_drain(self) -> None:
        """Stop the daemon, once that is confirmed."""

        def on_answer(yes: bool | None) -> None:
            if yes:
                self._tell(self.query_one(Workers), self._drained)

        name = self._source.runtime.settings.name
        self.push_screen(Confirm(f"Drain {name} and stop it? What runs may end; the rest is given back."), on_answer)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Show a job."""
        job = (event.row_key.value or "").removeprefix("job ")
        if job.isdecimal() and not isinstance(event.data_table, Queues):
            self._show(int(job))

    @work
    async def _show(self, job_id: int) -> None:
        try:
            found = await self._source.job(job_id)
        except WorkerdError as error:
            self.query_one(Jobs).headline.answer(str(error))
        else:
            self.push_screen(Detail(found))

    @work
    async def _tell(self, pane: Table, deed: Callable[[], Awaitable[str]]) -> None:
        """What came of it stands behind the title of the pane."""
        try:
            pane.headline.answer(await deed())
        except (WorkerdError, OSError) as error:
            pane.headline.answer(str(error))

    async def _scaled(self, count: int) -> str:
        done = await asyncio.to_thread(self._source.runtime.scale, count)
        await self._look_at_daemon()
        return done

    async def _paused(self, queue: str, *, paused: bool) -> str:
        await self._source.pause(queue, paused=paused)
        await self._look_at_database()
        return f"{queue} is paused" if paused else f"{queue} is served again"

    async def _retried(self, job_id: int) -> str:
        await self._source.retry(job_id)
        await self._look_at_database()
        return f"job {job_id} is queued again"

    async def _drained(self) -> str:
        await asyncio.to_thread(self._source.runtime.stop, None, now=False)
        return "stopped"
