"""The whole benchmark: which measurements there are, in which order they take turns."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from workerctl.bench import backlog, drain, enqueue, latency, snapshot, spread
from workerctl.bench.ours import open_ours
from workerctl.bench.peers.contender import open_peer
from workerctl.bench.peers.environment import UnavailableError
from workerctl.bench.process import ContenderError
from workerctl.bench.report import Report, surroundings
from workerctl.bench.server import directory, server
from workerctl.bench.site import Site

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from workerctl.bench.figure import Figure
    from workerctl.bench.peers.catalogue import Peer
    from workerd.settings import Settings

    Measurement = Callable[[Site], Awaitable[list[Figure]]]

SUITE: dict[str, tuple[Measurement, ...]] = {
    "drain": (drain.few, drain.many),
    "fleet": (drain.fleet, spread.long, spread.short),
    "snapshot": (snapshot.snapshot,),
    "enqueue": (enqueue.enqueue,),
    "latency": (latency.idle, latency.busy),
    "backlog": (backlog.backlog,),
}
USUAL = (
    "drain",
    "snapshot",
    "enqueue",
    "latency",
)  # the others take as long again: on demand, or where there is time for peers


async def run(
    settings: Settings, names: Sequence[str], repeat: int, jobs: int, peers: Sequence[Peer], tell: Callable[[str], None]
) -> Report:
    """Measure everything named, `repeat` times in turn, so that a bad moment of the machine does not hit one measurement alone."""
    # What ends us otherwise has to clean up too.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os.kill, os.getpid(), signal.SIGINT)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(directory())
        url = await stack.enter_async_context(server(settings, folder))
        ours = await stack.enter_async_context(open_ours(url, folder))
        opened, skipped = [], {}
        for peer in peers:
            tell(f"{peer.title} {peer.version}")
            try:
                opened.append(await stack.enter_async_context(open_peer(peer, url, folder)))
            except (UnavailableError, ContenderError) as error:
                skipped[peer.title] = str(error)
        report = Report(await surroundings(ours.connection), repeat, jobs, skipped)
        report.versions.update({contender.title: contender.peer.version for contender in opened})
        for turn in range(1, repeat + 1):
            for group in names:
                tell(f"{group}, {turn} of {repeat}")
                for measure in SUITE[group]:
                    report.add(await measure(Site(url, folder, jobs, turn, ours, opened, skipped)))
        return report
