"""A contest: what is measured of workerd is measured of each peer beside it, and set in proportion pair by pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl.bench.figure import Figure
from workerctl.bench.process import ContenderError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from workerctl.bench.contender import Contender
    from workerctl.bench.peers.contender import PeerContender
    from workerctl.bench.site import Site

    Measure = Callable[[Contender], Awaitable[list[Figure]]]


async def contest(site: Site, ours: Sequence[Contender], measure: Measure) -> list[Figure]:
    """The figures of ours and, where there are peers, of each right beside them, in the other order every other turn."""
    if not site.peers:
        return [figure for own in site.in_order(ours) for figure in await measure(own)]
    return [figure for peer in list(site.peers) for figure in await _beside(site, ours, peer, measure)]


async def _beside(site: Site, ours: Sequence[Contender], peer: PeerContender, measure: Measure) -> list[Figure]:
    """A peer that fails is taken out, and the report says why."""
    found: dict[Contender, list[Figure]] = {}
    for contender in site.in_order([ours[0], peer, *ours[1:]]):
        try:
            found[contender] = await measure(contender)
        except ContenderError as error:
            if contender is not peer:
                raise
            site.peers.remove(peer)
            site.skipped[peer.title] = str(error)
    theirs = found.get(peer, [])
    return [
        *(figure for figures in found.values() for figure in figures),
        *(
            _proportion(one, other, peer)
            for own in ours
            for one, other in zip(found[own], theirs, strict=False)
            if one.compared
        ),
    ]


def _proportion(one: Figure, other: Figure, peer: PeerContender) -> Figure:
    better = ", lower is better" if one.unit == "ms" else ""  # all others are rates
    who = f"{one.who} / {peer.title}{better}"
    return Figure(f"{one.key}_vs_{peer.name}", one.what, who, "ratio", one.value / other.value)
