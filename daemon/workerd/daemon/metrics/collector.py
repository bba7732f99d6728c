"""The figures of the daemon as Prometheus wants them; imported where metrics are served, and asked from threads."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)

from workerd import __version__
from workerd.queue.tally import BUCKETS, Tally, bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from workerd.config import Settings
    from workerd.daemon.finisher import Finisher
    from workerd.daemon.status import Status
    from workerd.maintenance.census import Census
    from workerd.queue.node import Figures

# Of the 120 steps of a tally, each 20 % wider, every sixth from 1 ms to 1 h: each is three times as wide as the one before.
EDGES = range(25, 110, 6)
OUTCOMES = ("succeeded", "failed", "cancelled", "retried")


def registry(
    settings: Settings, figures: Figures, finisher: Finisher, status: Status, census: Census
) -> CollectorRegistry:
    """All figures: those of the process by their usual names (`process_resident_memory_bytes`), ours with `workerd_`."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    made.register(_Collector(settings, figures, finisher, status, census))
    return made


class _Collector:
    def __init__(
        self, settings: Settings, figures: Figures, finisher: Finisher, status: Status, census: Census
    ) -> None:
        self._settings = settings
        self._figures = figures
        self._finisher = finisher
        self._status = status
        self._census = census

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("workerd", "The daemon", {"version": __version__, "node": self._settings.node})
        yield from self._jobs()
        yield from self._daemon()
        yield from self._depths()

    def _jobs(self) -> Iterator[Metric]:
        ended = CounterMetricFamily("workerd_jobs", "Attempts that ended here", labels=("task", "queue", "outcome"))
        ran = HistogramMetricFamily("workerd_job_run_seconds", "How long they ran", labels=("task",))
        by_task: dict[str, Tally] = {}
        for (task, queue), tally in self._finisher.totals():
            for outcome in OUTCOMES:
                ended.add_metric((task, queue, outcome), getattr(tally, outcome))
            by_task.setdefault(task, Tally()).merge(tally)
        for task, tally in by_task.items():
            ran.add_metric((task,), _cumulative(tally.run), tally.seconds)
        yield ended
        yield ran
        yield CounterMetricFamily(
            "workerd_jobs_lost", "Ends dropped since the job had been rescued", value=self._figures.lost
        )

    def _daemon(self) -> Iterator[Metric]:
        status = self._status
        for name, text, value in (
            ("workers", "Number of workers", self._figures.workers),
            ("workers_busy", "Jobs that run", self._figures.busy),
            ("draining", "1: it claims nothing more", status.state == "draining"),
            ("database_connected", "1: the database answers", status.connection == "connected"),
            ("loop_lag_seconds", "How late the main loop comes to what is new", status.loop_lag),
            ("leader", "1: this node leads", self._census.leads),
        ):
            yield GaugeMetricFamily(f"workerd_{name}", text, value=float(value))

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


def _cumulative(histogram: list[int]) -> list[tuple[str, float]]:
    """How many observations lie below each edge."""
    sums = list(accumulate(histogram))
    edges = [(str(float(f"{bound(place) / 1000:.4g}")), float(sums[place])) for place in EDGES]
    return [*edges, ("+Inf", float(sums[BUCKETS - 1]))]
