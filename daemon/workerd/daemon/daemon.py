"""The daemon: composes the parts, starts them in order, and drains them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from time import monotonic
from typing import TYPE_CHECKING, Any

from workerd import __version__, embedded
from workerd.daemon import logs, parent
from workerd.daemon.backlog import Backlog
from workerd.daemon.claimer import Claimer
from workerd.daemon.control import ControlServer
from workerd.daemon.departure import Departure
from workerd.daemon.executor import Executor
from workerd.daemon.finisher import Finisher
from workerd.daemon.handover import Predecessors
from workerd.daemon.holdings import Holdings
from workerd.daemon.host import DaemonHost
from workerd.daemon.lease_thread import LeaseThread
from workerd.daemon.link import Link
from workerd.daemon.notify import Supervisor
from workerd.daemon.orders import Orders
from workerd.daemon.reload import Reload
from workerd.daemon.status import Status
from workerd.daemon.workers import Workers
from workerd.errors import ConfigError, DatabaseError, SchemaError
from workerd.maintenance.leader import Leader
from workerd.maintenance.pruner import ttls
from workerd.queue import client, migrate, node, prune
from workerd.queue.client import Queue
from workerd.queue.database import CONNECTION_ERRORS, connect, is_there, location, refuse_pooler
from workerd.queue.node import Figures, Registration
from workerd.settings import WORKERS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.config import Settings
    from workerd.daemon.handover import Inheritance, Launch
    from workerd.daemon.pidfile import PidFile
    from workerd.locate import Location
    from workerd.queue.database import Connection
    from workerd.tasks import Task

PULSE = 1.0  # seconds between two measurements of the loop's lag
ECHO = 0.2  # seconds within which the parent passes a signal on that its starter, or a terminal, sent to both of us
CANCEL_LIMIT = 5.0  # seconds that a cancelled handler may take to end when the daemon stops
START_LIMIT = 30.0  # seconds for which trouble with a database that has answered is waited out at the start
FLUSH_LIMIT = 10.0  # seconds that the last results may take to be written when the daemon stops

log = logging.getLogger(__name__)


class Daemon:
    """One process that runs the jobs of one database. `run` returns when it has drained."""

    def __init__(
        self, settings: Settings, where: Location, tasks: dict[str, Task[..., Any]], pid_file: PidFile, launch: Launch,
        inheritance: Inheritance | None = None,
    ) -> None:  # fmt: skip
        """`inheritance`: what a predecessor passed on, whose place this daemon takes when it is ready."""
        self._settings = settings
        self._where = where
        self._tasks = tasks
        self._pid_file = pid_file
        self._inheritance = inheritance
        self.ready = asyncio.Event()  # set when it claims
        self._met = False  # the database has answered
        self._wake = asyncio.Event()
        self._departure = Departure(settings.drain_timeout, ECHO if parent.PARENT in os.environ else 0.0)
        self._holdings = Holdings(settings.node_id, max(1, settings.max_crashes - 1))
        self._figures = Figures(workers=settings.workers if inheritance is None else inheritance.workers(settings))
        self._supervisor = Supervisor()
        self._name = f"worker {settings.node}"
        backlog = Backlog(self._wake)
        self._finisher = Finisher(settings, self._figures, self._wake)
        self._executor = Executor(settings, tasks)
        self._workers = Workers(
            backlog, self._executor, self._finisher, self._figures, self._wake, settings.concurrent_jobs
        )
        self._status = Status(settings, where.url, self._holdings, self._workers, self._figures)
        self._backlog = backlog
        self._link = Link(where.direct, self._name, self._status.connection_is, self._on_lost)
        self._claimer = Claimer(
            self._link, settings, sorted(tasks), self._holdings, backlog, self._workers, self._executor, self._finisher, self._wake,
            self._beat_now, Orders({"scale": self._on_scale, "drain": self._on_drain}),
        )  # fmt: skip
        self._predecessors = Predecessors(inheritance.predecessors if inheritance is not None else ())
        self._reload = Reload(
            launch, pid_file, self._predecessors, settings, self._figures, self._status, self._supervisor, self._departure,
            max([settings.job_timeout, *(task.timeout or 0.0 for task in tasks.values())]), self._adopt,
        )  # fmt: skip
        self._control = ControlServer(
            settings.socket_path,
            {
                "status": self._on_status, "health": self._on_health, "scale": self._on_scale, "drain": self._on_drain,
                "reload": self._on_reload,
            },
        )  # fmt: skip

    async def run(self) -> None:
        """Work until told to stop. Raises WorkerdError when it cannot start."""
        if self._inheritance is None:
            self._supervisor.starting()
        self._lease = LeaseThread(
            self._where.direct, self._registration(), self._figures, self._holdings.node, self._reborn_threadsafe()
        )
        self._lease.start()
        try:
            queue, connection = await self._connect()
        except BaseException:
            self._lease.leave()
            raise
        try:
            if self._inheritance is None:
                await self._control.start()
            await self._lease.register()
            async with asyncio.TaskGroup() as group:
                await self._work(group, queue, connection)
                if self._executor.running or self._executor.written_off:  # they would keep the group waiting for ever
                    await self._leave(queue)
                    logging.shutdown()
                    os._exit(1 if self._executor.running else 0)
        finally:
            await self._leave(queue)

    async def _leave(self, queue: Queue) -> None:
        await self._executor.children.close()
        self._lease.leave()
        await asyncio.to_thread(self._lease.join, 5.0)
        client.set_default(None)
        queue.terminate()
        await self._control.stop(replaced=self._reload.handed_to is not None)
        await self._predecessors.wait(self._departure.remaining + CANCEL_LIMIT + FLUSH_LIMIT)
        log.info("stopped: PID %s, %s", os.getpid(), self._status.line())

    async def _connect(self) -> tuple[Queue, Connection]:
        """The pool, and the claimer's first connection, on which the schema was brought up to date.

        A database that cannot be reached fails the start at once; when it has answered once, trouble is waited out.
        """
        log.info("database: %s%s", location(self._where.url), " (embedded)" if self._where.embedded else "")
        end, wait = monotonic() + START_LIMIT, 0.1
        while True:
            try:
                return await self._connect_once()
            except (DatabaseError, *CONNECTION_ERRORS) as error:
                text = str(error) or type(error).__name__
                if not (self._met or is_there(error)) or isinstance(error, SchemaError) or monotonic() > end:
                    raise error if isinstance(error, DatabaseError) else DatabaseError(text) from error
            log.warning("database: %s; again in %.1f s", text, wait)
            await asyncio.sleep(wait)
            wait = min(wait * 2, 2.0)

    async def _connect_once(self) -> tuple[Queue, Connection]:
        opening = asyncio.create_task(self._open_queue(), name="pool")
        connection = None
        try:
            connection = await connect(self._where.direct, self._name, claims=True)
            await refuse_pooler(connection, self._where.direct)
            self._met = True
            await self._prepare(connection)
            return await opening, connection
        except BaseException:
            if connection is not None:
                connection.terminate()
            opening.cancel()
            for opened in await asyncio.gather(opening, return_exceptions=True):
                if isinstance(opened, Queue):
                    opened.terminate()
            raise

    async def _prepare(self, connection: Connection) -> None:
        """Bring the schema up to date and make known what this daemon runs."""
        for migration in await migrate.upgrade(connection):
            log.info("schema: applied migration %s %s", migration.version, migration.name)
        await prune.add_days(connection, ttls(self._settings, self._tasks))
        await node.declare_tasks(connection, self._tasks.values(), self._settings.max_retries)

    async def _open_queue(self) -> Queue:
        settings = self._settings
        queue = await Queue.connect(
            self._where.url, pool_size=settings.database_pool_size + settings.database_max_overflow,
            acquire_timeout=settings.database_pool_timeout, pooled=self._where.pooled, name=f"{self._name} pool",
        )  # fmt: skip
        client.set_default(queue)
        return queue

    async def _work(self, group: asyncio.TaskGroup, queue: Queue, connection: Connection) -> None:
        self._queue = queue
        host = DaemonHost(self._settings, queue, self._executor, self._holdings)
        self._executor.host = host
        self._install_signals()
        claimer = group.create_task(self._claimer.run(connection), name="claimer")
        self._workers.start(group, self._figures.workers)
        leader = Leader(self._where.direct, self._settings, self._tasks, f"{self._name} maintenance")
        helpers = [
            group.create_task(leader.run(), name="leader"),
            group.create_task(host.flush_forever(), name="progress"),
            group.create_task(self._executor.enforce_timeouts(), name="timeouts"),
            group.create_task(self._pulse(), name="pulse"),
        ]
        await self._link.ready.wait()
        await self._enter()
        await self._departure.asked.wait()
        if self._reload.handed_to is not None:  # somebody else has to lead while this one drains, which may take long
            helpers.pop(0).cancel()
        await self._drain()
        for helper in helpers:
            helper.cancel()
        await self._settle(claimer)
        self._workers.scale(0)

    async def _enter(self) -> None:
        """We claim: say so to everybody, and take the place of the predecessor, if there is one."""
        settings = self._settings
        if self._inheritance is not None and not await self._take_over(self._inheritance):
            self._departure.hurry()
            return
        self._status.state = "running"
        log.info("queues: %s; tasks: %s", ", ".join(settings.queues) or "all", ", ".join(sorted(self._tasks)))
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
        log.info("took over from PID %s", inheritance.state["pid"])
        self._predecessors.watch()
        return True

    async def _drain(self) -> None:
        """Stop claiming, wait for what runs, then cancel and give it back."""
        self._status.state = "draining"
        self._figures.draining = True
        self._supervisor.stopping()
        log.info("draining: %s jobs run, they have %.0f s", self._workers.busy, self._departure.remaining)
        self._tell_predecessors()
        self._claimer.stop_claiming()
        self._workers.drain()
        await self._departure.wait(self._workers.quiet)
        if not self._workers.quiet.is_set():
            log.warning("%s jobs still run: they are cancelled and given back", self._workers.busy)
            self._tell_predecessors()
            for run in list(self._executor.running):
                run.halt("returned")
            await _first(self._workers.quiet, timeout=CANCEL_LIMIT)
        for end in self._executor.abandon():
            log.error("job %s %s does not end although it is cancelled: it is given back", end.job.id, end.job.task)
            self._finisher.add(end)

    def _tell_predecessors(self) -> None:
        """Who still drains after a hand-over has no more time than we have."""
        if self._departure.remaining:
            self._predecessors.order(drain=self._departure.remaining)
        else:
            self._predecessors.order(now=True)

    async def _settle(self, claimer: asyncio.Task[None]) -> None:
        """Let the claimer write what ended; where the database stays away, leave it to rescue."""
        self._claimer.close()
        done, _ = await asyncio.wait([claimer], timeout=FLUSH_LIMIT)
        if not done:
            log.error(
                "the database did not take the last results within %.0f s: those jobs will be rescued and run again",
                FLUSH_LIMIT,
            )
            claimer.cancel()

    async def _pulse(self) -> None:
        """Measure how late the loop wakes us, see whether the database answers, and tell the supervisor that we live."""
        every = min(PULSE, self._supervisor.watchdog_interval or PULSE)
        monitor_at = monotonic() + (self._settings.monitor or 0.0)
        while True:
            due = monotonic() + every
            await asyncio.sleep(every)
            self._status.loop_lag = max(0.0, monotonic() - due)
            self._link.watch()
            if parent.is_gone():
                log.error("the parent process was killed: what runs is given back")
                self._departure.hurry()
            self._reload.renew()
            if self._supervisor.watchdog_interval is not None:
                self._supervisor.alive()
            self._supervisor.status(self._status.line())
            if self._settings.monitor is not None and monotonic() >= monitor_at:
                monitor_at = monotonic() + self._settings.monitor
                log.info(
                    "%s, %s MB, loop lag %.1f ms",
                    self._status.line(),
                    self._status.report()["rss_bytes"] // 1_000_000,
                    self._status.loop_lag * 1000,
                )

    def _registration(self) -> Registration:
        settings = self._settings
        return Registration(
            settings.node,
            os.getpid(),
            __version__,
            settings.heartbeat_interval,
            sorted(self._tasks),
            list(settings.queues),
        )

    def _reborn_threadsafe(self) -> Callable[[int], None]:
        loop = asyncio.get_running_loop()

        def tell(node_id: int) -> None:
            loop.call_soon_threadsafe(self._reborn, node_id)

        return tell

    def _beat_now(self) -> None:
        self._lease.beat_now()

    async def _on_lost(self) -> None:
        """Start the embedded server again when it has died, and trust no other connection: they may be as dead as this one."""
        self._lease.beat_now()
        await self._queue.expire()
        if self._where.embedded:
            await asyncio.to_thread(embedded.start, self._settings.state_dir)

    def _reborn(self, node_id: int) -> None:
        """This node was declared dead: nothing that it held is its own any more."""
        old = self._holdings.node
        for run in list(self._executor.running):
            run.halt("lost")
        self._backlog.clear()
        self._finisher.forget(old)
        self._holdings.reborn(node_id)
        self._claimer.begin_anew()

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._departure.signal)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        loop.add_signal_handler(signal.SIGUSR1, logs.dump_stacks)

    def _on_hangup(self) -> None:
        logs.reopen()
        self._reconfiguring = asyncio.create_task(self._reload.reconfigure(), name="reconfigure")

    def _adopt(self, settings: Settings) -> None:
        """Take in settings that can change in place."""
        if settings.workers != self._settings.workers:
            self._workers.scale(settings.workers)
        logging.getLogger().setLevel(settings.log_level)
        self._departure.drain_timeout = settings.drain_timeout
        self._settings = settings

    async def _on_status(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {**self._status.report(), **self._reload.state()}

    async def _on_reload(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"before": os.getpid(), "pid": await self._reload.hand_over()}

    async def _on_health(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"live": True, "ready": self._status.state == "running" and self._link.ready.is_set()}

    async def _on_scale(self, request: dict[str, Any]) -> dict[str, Any]:
        count = request.get("workers")
        if not isinstance(count, int) or not 1 <= count <= WORKERS_MAX:
            raise ConfigError(f"the number of workers is {count}, allowed is 1 to {WORKERS_MAX}")
        if self._status.state != "running":
            raise ConfigError(f"the daemon is {self._status.state}: only a running one can be scaled")
        before = self._figures.workers
        self._workers.scale(count)
        log.info("scaled from %s to %s workers", before, count)
        return {"workers": count, "before": before}

    async def _on_drain(self, request: dict[str, Any]) -> dict[str, Any]:
        timeout = request.get("timeout")
        if request.get("now"):
            self._departure.hurry()
        self._departure.ask(float(timeout) if isinstance(timeout, (int, float)) else None)
        return {"busy": self._workers.busy}


async def _first(*events: asyncio.Event, timeout: float) -> None:
    """Wait until one of the events is set, or `timeout` seconds have passed."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
