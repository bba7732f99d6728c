"""The daemon: composes the parts, starts them in order, and drains them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING, Any

from workerd import __version__
from workerd.daemon import logs, own_log, parent, spans, tracing
from workerd.daemon.audience import Audience
from workerd.daemon.backlog import Backlog
from workerd.daemon.claimer import Claimer
from workerd.daemon.control import ControlServer
from workerd.daemon.counters import Counters
from workerd.daemon.departure import Departure
from workerd.daemon.drain import CANCEL_LIMIT, FLUSH_LIMIT, Drain
from workerd.daemon.executor import Executor
from workerd.daemon.finisher import Finisher
from workerd.daemon.handover.predecessors import Predecessors
from workerd.daemon.holdings import Holdings
from workerd.daemon.host import DaemonHost
from workerd.daemon.lease_thread import LeaseThread
from workerd.daemon.lifecycle import SHUTDOWN_LIMIT, Lifecycle
from workerd.daemon.link import Link
from workerd.daemon.listeners import Listeners
from workerd.daemon.loop import Loop
from workerd.daemon.loop_watch import LoopWatch
from workerd.daemon.metrics.answers import Answers
from workerd.daemon.metrics.listener import address, listen
from workerd.daemon.metrics.server import MetricsServer
from workerd.daemon.notify import Supervisor
from workerd.daemon.orders import Orders
from workerd.daemon.prelude import Prelude
from workerd.daemon.pulse import EXTENSION, PULSE, Pulse
from workerd.daemon.reload import Reload
from workerd.daemon.status import Status
from workerd.daemon.threads import in_thread
from workerd.daemon.verbs import Verbs
from workerd.daemon.watchdog import Watchdog
from workerd.daemon.workers import Workers
from workerd.maintenance.census import Census
from workerd.maintenance.leader import Leader
from workerd.queue.node import Figures, Registration

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from workerd.config import Settings
    from workerd.daemon.handover.inheritance import Inheritance
    from workerd.daemon.handover.launch import Launch
    from workerd.daemon.pidfile import PidFile
    from workerd.daemon.transport.base import Session, Transport
    from workerd.tasks import Task

ECHO = 0.2  # seconds within which the parent passes a signal on that its starter, or a terminal, sent to both of us
LEASE_LIMIT = 5.0  # seconds that the lease thread may take to deregister the node

log = logging.getLogger(__name__)


class Daemon:
    """One process that runs the jobs of one database. `run` returns when it has drained."""

    def __init__(
        self,
        settings: Settings,
        transport: Transport,
        tasks: dict[str, Task[..., Any]],
        pid_file: PidFile,
        launch: Launch,
        inheritance: Inheritance | None = None,
    ) -> None:
        """`inheritance`: what a predecessor passed on, whose place this daemon takes when it is ready."""
        self._settings = settings
        self._transport = transport
        self._tasks = tasks
        self._runs = sorted(t.name for t in tasks.values() if transport.direct is not None or not t.needs_database)
        self._pid_file = pid_file
        self._inheritance = inheritance
        self.ready = asyncio.Event()  # set when it claims
        self._opened = False
        self._wake = asyncio.Event()
        self._departure = Departure(settings.drain_timeout, ECHO if parent.PARENT in os.environ else 0.0)
        self._holdings = Holdings(settings.node_id, max(1, settings.max_crashes - 1))
        self._figures = Figures(workers=settings.workers if inheritance is None else inheritance.workers(settings))
        self._supervisor = Supervisor(succeeds=inheritance is not None)
        self._name = f"worker {settings.node}"
        self._backlog = Backlog(self._wake)
        self._finisher = Finisher(settings, self._figures, self._wake)
        self._listeners = Listeners()
        if self._listeners:
            self._finisher.tell = self._listeners.tell
        self._executor = Executor(settings, tasks)
        self._lifecycle = Lifecycle(settings, self._executor.resources)
        self._workers = Workers(
            self._backlog, self._executor, self._finisher, self._figures, self._wake, settings.concurrent_jobs
        )
        self._loop_watch = LoopWatch(settings.stall_limit, self._executor.renew)
        self._status = Status(settings, transport.place, self._holdings, self._workers, self._figures, self._loop_watch)
        self._counters = Counters()
        self._link = Link(transport, self._status.connection_is, self._on_lost, self._counters)
        self._predecessors = Predecessors(inheritance.predecessors if inheritance is not None else ())
        listener = listen(settings, inheritance)
        self._status.metrics = address(listener)
        self._census = Census()
        self._reload = Reload(
            launch,
            pid_file,
            self._predecessors,
            settings,
            self._figures,
            self._status,
            self._supervisor,
            self._departure,
            max([settings.job_timeout, *(task.timeout or 0.0 for task in tasks.values())]),
            self._adopt,
            listener,
        )
        self._watchdog = Watchdog(
            self._link, self._backlog, self._workers, self._finisher, self._loop_watch, self._status
        )
        verbs = Verbs(self._status, self._link, self._workers, self._departure, self._reload, launch)
        self._metrics = MetricsServer(listener, Answers(self._collect, verbs.health, self._status))
        self._control = ControlServer(settings.socket_path, verbs.of_socket)
        self._audience = Audience(settings.progress_interval)
        self._claimer = Claimer(
            self._link,
            settings,
            self._runs,
            self._holdings,
            self._backlog,
            self._workers,
            self._executor,
            self._finisher,
            self._wake,
            self._beat_now,
            Orders(verbs.of_orders),
            self._audience,
            self._counters,
        )
        self._drain = Drain(
            self._departure, self._predecessors, self._claimer, self._workers, self._executor, self._finisher
        )
        self._pulse = Pulse(
            settings, self._status, self._supervisor, self._link, self._watchdog, self._reload, self._departure
        )

    async def run(self) -> None:
        """Work until told to stop. Raises WorkerdError when it cannot start."""
        self._install_signals()
        self._supervisor.starting()
        if self._inheritance is None:
            self._metrics.start()
        self._lease = self._lease_thread()
        self._lease.start()
        try:
            session = await self._begin_unless_asked()
            if session is None:
                log.info("told to stop before it was ready")
                return
            async with asyncio.TaskGroup() as group:
                await self._work(group, session)
                if self._executor.running or self._executor.written_off:  # they would keep the group waiting for ever
                    await self._leave()
                    logging.shutdown()
                    os._exit(1 if self._executor.running else 0)
        finally:
            if not self._departure.asked.is_set():  # an error of our own: it leaves no more time than a drain
                self._departure.ask()
            await self._leave()

    def stop(self, timeout: float | None = None) -> None:
        """Drain, for `timeout` seconds at most (DRAIN_TIMEOUT unless given)."""
        self._departure.ask(timeout)

    async def _begin_unless_asked(self) -> Session | None:
        """The claimer's first session; None when we were asked to leave meanwhile. A supervisor waits as long as it takes."""
        beginning = asyncio.create_task(self._begin(), name="begin")
        asked = asyncio.create_task(self._departure.asked.wait(), name="asked")
        try:
            while not (beginning.done() or asked.done()):
                self._supervisor.extend(EXTENSION)
                await asyncio.wait([beginning, asked], timeout=PULSE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            if not beginning.done():
                beginning.cancel()
                await asyncio.wait([beginning])
        return None if beginning.cancelled() else beginning.result()

    async def _begin(self) -> Session:
        session = await self._transport.open()
        self._opened = True
        try:
            if self._inheritance is None:
                await self._control.start()
            await self._lifecycle.start()
            await self._lease.register()
        except BaseException:
            session.terminate()
            raise
        return session

    async def _leave(self) -> None:
        await self._metrics.stop()
        self._lease.leave()
        if not self._opened:
            return
        self._supervisor.extend(EXTENSION + SHUTDOWN_LIMIT)
        await self._executor.children.close()
        await self._lifecycle.stop()
        await self._executor.resources.close()
        await tracing.flush()
        await in_thread("lease", lambda: self._lease.join(LEASE_LIMIT))
        self._transport.close()
        await self._control.stop(replaced=self._reload.handed_to is not None)
        patience = self._departure.remaining + CANCEL_LIMIT + FLUSH_LIMIT
        self._supervisor.extend(patience)
        await self._predecessors.wait(patience)
        log.info("stopped: PID %s, %s", os.getpid(), self._status.line())

    async def _work(self, group: asyncio.TaskGroup, session: Session) -> None:
        desk = self._transport.desk
        host = DaemonHost(self._settings, desk, self._executor, self._holdings, self._audience)
        self._executor.host = host
        self._executor.prelude = Prelude(desk)
        claiming = group.create_task(self._claimer.run(session), name="claimer")
        self._workers.run = spans.around(self._executor.run, self._tasks)
        self._workers.start(group, self._figures.workers)
        leading = self._leader(group)
        helpers = [
            group.create_task(host.flush_forever(), name="progress"),
            group.create_task(self._executor.enforce_timeouts(), name="timeouts"),
        ]
        listening = self._listeners.start(group)
        pulse = group.create_task(self._pulse.run(), name="pulse")
        await self._departure.or_asked(self._link.ready)
        if not self._departure.asked.is_set():
            await self._enter()
        await self._departure.asked.wait()
        if self._reload.handed_to is not None:  # somebody else has to lead while this one drains, which may take long
            for each in leading:
                each.cancel()
            await self._metrics.stop()  # that one serves them now
        self._status.state = "draining"
        self._figures.draining = True
        self._supervisor.stopping()
        await self._drain.run()
        for helper in (*leading, *helpers):
            helper.cancel()
        await self._drain.settle(claiming)
        await self._listeners.settle()
        for each in listening:
            each.cancel()
        self._workers.scale(0)
        pulse.cancel()

    def _leader(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Who works through a manager leads nobody."""
        if self._transport.direct is None:
            return []
        name = f"{self._name} maintenance"
        leader = Leader(
            self._transport.direct, self._settings, self._tasks, name, self._census, lambda: self._holdings.node
        )
        return [group.create_task(leader.run(), name="leader")]

    async def _enter(self) -> None:
        """We claim: say so to everybody, and take the place of the predecessor, if there is one."""
        settings = self._settings
        if self._inheritance is not None and not await self._take_over(self._inheritance):
            self._departure.hurry()
            return
        self._status.state = "running"
        log.info("queues: %s; tasks: %s", ", ".join(settings.queues) or "all", ", ".join(self._runs))
        log.info(
            "workers: %s x %s; PID %s, node %s",
            self._figures.workers,
            settings.concurrent_jobs,
            os.getpid(),
            settings.node,
        )
        log.info("ready")
        self.ready.set()
        self._supervisor.ready(self._status.line())

    async def _take_over(self, inheritance: Inheritance) -> bool:
        """Whether we are in charge now."""
        if not await inheritance.take_over():
            log.info("the predecessor was told to stop: this process is not needed")
            return False
        self._pid_file.write()
        await self._control.start(replace=True)
        inheritance.taken()
        self._metrics.start()
        log.info("took over from PID %s", inheritance.state["pid"])
        self._predecessors.watch()
        return True

    def _collect(self) -> CollectorRegistry:
        from workerd.daemon.metrics.collector import registry  # what it imports is not small

        return registry(self._settings, self._figures, self._finisher, self._status, self._census, self._counters)

    def _lease_thread(self) -> LeaseThread:
        settings, loop = self._settings, asyncio.get_running_loop()
        about = Registration(
            settings.node,
            os.getpid(),
            __version__,
            settings.heartbeat_interval,
            self._runs,
            list(settings.queues),
        )

        def on_reborn(node_id: int) -> None:
            loop.call_soon_threadsafe(self._reborn, node_id)

        return LeaseThread(self._transport, about, self._figures, self._holdings.node, on_reborn, self._loop_watch)

    def _beat_now(self) -> None:
        self._lease.beat_now()

    async def _on_lost(self) -> None:
        self._lease.beat_now()
        await self._transport.on_lost()

    def _reborn(self, node_id: int) -> None:
        """This node was declared dead: nothing that it held is its own any more."""
        old = self._holdings.node
        for run in list(self._executor.running):
            run.halt("lost")
        self._backlog.clear()
        self._finisher.forget(old)
        self._counters.leases_lost += self._holdings.reborn(node_id)
        self._claimer.begin_anew()

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(loop, Loop):
            loop.on_exit = self._executor.on_exit
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._departure.signal)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        loop.add_signal_handler(signal.SIGUSR1, logs.dump_stacks)

    def _on_hangup(self) -> None:
        logs.reopen()
        if not self.ready.is_set():  # the settings have just been read
            return
        self._reconfiguring = asyncio.create_task(self._reload.reconfigure(), name="reconfigure")

    def _adopt(self, settings: Settings) -> None:
        """Take in settings that can change in place."""
        if settings.workers != self._settings.workers:
            self._workers.scale(settings.workers)
        own_log.set_level(settings.log_level)
        self._departure.drain_timeout = settings.drain_timeout
        self._pulse.adopt(settings)
        self._settings = settings
