"""The figures of the daemon as Prometheus wants them; imported where metrics are served, and asked from threads."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import psutil
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)

from workerd import __version__
from workerd.daemon.counters import BATCHES
from workerd.queue.tally import BUCKETS, Tally, bound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client import Metric

    from workerd.config import Settings
    from workerd.daemon.counters import Counters
    from workerd.daemon.finisher import Finisher
    from workerd.daemon.status import Status
    from workerd.maintenance.census import Census
    from workerd.queue.node import Figures

# Of the 120 steps of a tally, each 20 % wider, every sixth from 1 ms to 1 h: each is three times as wide as the one before.
EDGES = range(25, 110, 6)
OUTCOMES = ("succeeded", "failed", "cancelled", "retried")


def registry(
    settings: Settings, figures: Figures, finisher: Finisher, status: Status, census: Census, counters: Counters
) -> CollectorRegistry:
    """All figures: those of the process by their usual names (`process_resident_memory_bytes`), ours with `workerd_`."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    made.register(_Collector(settings, figures, finisher, status, census, counters))
    return made


class _Collector:
    """Asks nothing of the database: what it tells was counted here, or by the leader at its own pace."""

    def __init__(
        self,
        settings: Settings,
        figures: Figures,
        finisher: Finisher,
        status: Status,
        census: Census,
        counters: Counters,
    ) -> None:
        self._settings = settings
        self._figures = figures
        self._finisher = finisher
        self._status = status
        self._census = census
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("workerd", "The daemon", {"version": __version__, "node": self._settings.node})
        yield from self._jobs()
        yield from self._claims()
        yield from self._daemon()
        yield from self._disks()
        yield from self._depths()
        yield from self._condition()

    def _jobs(self) -> Iterator[Metric]:
        ended = CounterMetricFamily("workerd_jobs", "Attempts that ended here", labels=("task", "queue", "outcome"))
        by_task: defaultdict[str, Tally] = defaultdict(Tally)
        for (task, queue), tally in self._finisher.totals():
            for outcome in OUTCOMES:
                ended.add_metric((task, queue, outcome), getattr(tally, outcome))
            by_task[task].merge(tally)
        ran = HistogramMetricFamily("workerd_job_run_seconds", "How long attempts ran", labels=("task",))
        waited = HistogramMetricFamily(
            "workerd_job_wait_seconds",
            "How long jobs waited for their first attempt after they were due",
            labels=("task",),
        )
        for task, tally in by_task.items():
            ran.add_metric((task,), _cumulative(tally.run), tally.seconds)
            waited.add_metric((task,), _cumulative(tally.wait), tally.waited)
        yield ended
        yield ran
        yield waited

    def _claims(self) -> Iterator[Metric]:
        counters = self._counters
        edges = [*map(str, map(float, BATCHES)), "+Inf"]
        batches = HistogramMetricFamily("workerd_claim_batch_jobs", "Jobs of each claim that found any")
        batches.add_metric((), [*zip(edges, map(float, accumulate(counters.batches)), strict=True)], counters.claimed)
        yield batches
        for name, text, value in (
            ("jobs_lost", "Ends dropped since the job had been rescued", self._figures.lost),
            ("leases_lost", "Leases lost since this node was declared dead", counters.leases_lost),
            ("reconnects", "Connections for claims that were made anew", counters.reconnects),
            ("jobs_rescued", "Jobs that this node, leading, took back from dead ones", self._census.rescued),
        ):
            yield CounterMetricFamily(f"workerd_{name}", text, value=value)

    def _daemon(self) -> Iterator[Metric]:
        status = self._status
        for name, text, value in (
            ("workers", "Number of workers", self._figures.workers),
            ("workers_busy", "Jobs that run", self._figures.busy),
            ("draining", "1: it claims nothing more", status.state == "draining"),
            ("database_connected", "1: the database answers", status.connection == "connected"),
            ("loop_lag_seconds", "How late the main loop comes to what is new", status.loop_lag),
            ("stuck_parts", "Loops of the daemon that do not turn any more", len(status.stuck)),
        ):
            yield GaugeMetricFamily(f"workerd_{name}", text, value=float(value))

    def _disks(self) -> Iterator[Metric]:
        free = GaugeMetricFamily("workerd_disk_free_bytes", "Room for what the daemon writes", labels=("directory",))
        size = GaugeMetricFamily("workerd_disk_size_bytes", "Size of the disk it lies on", labels=("directory",))
        for name, directory in (("state", self._settings.state_dir), ("log", self._settings.log_dir)):
            disk = _disk(directory)
            free.add_metric((name,), disk.free)
            size.add_metric((name,), disk.total)
        yield free
        yield size

    def _depths(self) -> Iterator[Metric]:
        """From the leader alone, so that the sum over all nodes is right."""
        jobs = GaugeMetricFamily("workerd_queue_jobs", "Unfinished jobs", labels=("queue", "state"))
        oldest = GaugeMetricFamily("workerd_queue_oldest_seconds", "Age of the oldest queued job", labels=("queue",))
        for depth in self._census.depths:
            for state in ("queued", "scheduled", "blocked", "running"):
                jobs.add_metric((depth.queue, state), getattr(depth, state))
            oldest.add_metric((depth.queue,), depth.oldest or 0.0)
        yield jobs
        yield oldest
        # Looked at after the depths: who tells them leads.
        yield GaugeMetricFamily("workerd_leader", "1: this node leads", value=float(self._census.leads))

    def _condition(self) -> Iterator[Metric]:
        """From the leader alone, as above."""
        nodes = GaugeMetricFamily("workerd_nodes", "Nodes by their state", labels=("state",))
        dead_rows = GaugeMetricFamily("workerd_dead_rows", "Row versions to be vacuumed", labels=("table",))
        transaction = GaugeMetricFamily("workerd_oldest_transaction_seconds", "Age of the oldest open transaction")
        snapshot = GaugeMetricFamily("workerd_oldest_snapshot_seconds", "Age of the oldest one that keeps dead rows")
        quarantined = GaugeMetricFamily(
            "workerd_jobs_quarantined", "Jobs that were refused and failed for it, of the last day"
        )
        if (found := self._census.condition) is not None:
            for state, count in found.nodes.items():
                nodes.add_metric((state,), count)
            for table, count in found.dead_rows.items():
                dead_rows.add_metric((table,), count)
            transaction.add_metric((), found.oldest_transaction)
            snapshot.add_metric((), found.oldest_snapshot)
            quarantined.add_metric((), found.quarantined)
        yield from (nodes, dead_rows, transaction, snapshot, quarantined)


def _disk(directory: Path) -> Any:
    """Of the directory, or of the nearest one above it that can be looked at: it may not have been needed yet."""
    for each in (directory, *directory.parents):
        with contextlib.suppress(OSError):
            return psutil.disk_usage(str(each))
    raise FileNotFoundError(directory)


def _cumulative(histogram: list[int]) -> list[tuple[str, float]]:
    """How many observations lie below each edge."""
    sums = list(accumulate(histogram))
    edges = [(str(float(f"{bound(place) / 1000:.4g}")), float(sums[place])) for place in EDGES]
    return [*edges, ("+Inf", float(sums[BUCKETS - 1]))]
