"""What `workerctl bench` makes of figures of workerd and of its peers: proportions, pair by pair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from workerctl.bench.contest import contest
from workerctl.bench.figure import Figure
from workerctl.bench.process import ContenderError
from workerctl.bench.site import Site


@dataclass(frozen=True)
class System:
    """Something that is measured: its figures are given."""

    name: str
    rate: float
    latency: float

    @property
    def title(self) -> str:
        return self.name.title()


OURS, KEPT, PEER = System("ours", 300.0, 2.0), System("kept", 200.0, 3.0), System("peer", 100.0, 4.0)


def site(turn: int, *peers: System) -> Site:
    return Site("", Path(), 100, turn, cast("Any", OURS), cast("Any", list(peers)), {})


async def run(where: Site, failing: System | None = None) -> tuple[list[str], dict[str, Figure]]:
    """In which order they were measured, and the figures."""
    order = []

    async def measure(contender: Any) -> list[Figure]:
        order.append(contender.name)
        if contender is failing:
            raise ContenderError("it ended")
        rate = Figure(f"{contender.name}_rate", "", contender.title, "jobs/s", contender.rate, compared=True)
        wait = Figure(f"{contender.name}_wait", "", contender.title, "ms", contender.latency, compared=True)
        return [rate, Figure(f"{contender.name}_memory", "", contender.title, "MB", 1.0), wait]

    figures = await contest(where, cast("Any", [OURS, KEPT]), measure)
    return order, {figure.key: figure for figure in figures}


async def test_each_of_ours_is_set_in_proportion_to_a_peer_but_not_what_is_not_compared() -> None:
    _, figures = await run(site(1, PEER))
    pairs = {key: figure.value for key, figure in figures.items() if "_vs_" in key}
    assert pairs == {
        "ours_rate_vs_peer": 3.0,
        "ours_wait_vs_peer": 0.5,
        "kept_rate_vs_peer": 2.0,
        "kept_wait_vs_peer": 0.75,
    }
    assert figures["ours_wait_vs_peer"].who == "Ours / Peer, lower is better"
    assert figures["ours_rate_vs_peer"].who == "Ours / Peer"
    assert figures["peer_rate"].value == PEER.rate


async def test_a_peer_stands_right_beside_ours_and_every_other_turn_goes_the_other_way_round() -> None:
    assert (await run(site(1, PEER)))[0] == ["ours", "peer", "kept"]
    assert (await run(site(2, PEER)))[0] == ["kept", "peer", "ours"]


async def test_a_peer_that_fails_is_taken_out_and_the_report_says_why() -> None:
    where = site(1, PEER)
    _, figures = await run(where, failing=PEER)
    assert {key.partition("_")[0] for key in figures} == {"ours", "kept"}
    assert not any("_vs_" in key for key in figures)
    assert (where.peers, where.skipped) == ([], {"Peer": "it ended"})


@pytest.mark.parametrize("peers", [(), (PEER,)])
async def test_a_failure_of_ours_ends_the_benchmark(peers: tuple[System, ...]) -> None:
    with pytest.raises(ContenderError):
        await run(site(1, *peers), failing=OURS)
