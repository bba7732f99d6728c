"""Every metric, from what a daemon and a manager answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

from tests.reference.page import code, page, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

INTRODUCTION = (
    "Of a daemon with `ENABLE_METRICS`, and of the manager's `/metrics`. What they are for, and queries, are in "
    "[monitoring](../monitoring.md). Durations are seconds, sizes bytes. A histogram has `_bucket`, `_sum` and `_count`."
)
BY_THE_CLIENT = "`process_*`: memory, CPU and open files of the process, as Prometheus' own client library names them."
HIDDEN = {"le"}


def text(daemon: str, manager: str) -> str:
    """The page; takes what the two answer in the OpenMetrics format, with at least one sample of each metric."""
    return page(
        "Metrics",
        INTRODUCTION,
        f"## Daemon\n\n{_table(daemon)}\n\n{BY_THE_CLIENT}",
        f"## Manager\n\n{_table(manager)}",
    )


def families(exposed: str) -> list[Metric]:
    return list(parse(exposed))  # type: ignore[no-untyped-call]


def _table(exposed: str) -> str:
    return table(("metric", "type", "labels", "what"), _rows(exposed))


def _rows(exposed: str) -> Iterator[tuple[str, str, str, str]]:
    for family in sorted(families(exposed), key=lambda each: each.name):
        if not family.name.startswith("workerd"):
            continue
        labels = {label: None for sample in family.samples for label in sample.labels if label not in HIDDEN}
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        yield code(family.name + suffix), family.type, ", ".join(map(code, labels)), family.documentation
