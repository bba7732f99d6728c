"""Where a measurement takes place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from workerctl.bench.ours import Ours
    from workerctl.bench.peers.contender import PeerContender

T = TypeVar("T")

MANY = 6  # the long drains are of so many times `jobs`
FULL = 20_000  # jobs of a benchmark in which everything takes its full time


@dataclass(frozen=True, slots=True)
class Site:
    """The server at `url`; `folder` is for the files of processes; `turn` counts the repetitions."""

    url: str
    folder: Path
    jobs: int
    turn: int
    ours: Ours
    peers: list[PeerContender]  # one that fails is taken out
    skipped: dict[str, str]  # why, by title

    @property
    def part(self) -> float:
        """How much of the full time shall be spent."""
        return min(1.0, self.jobs / FULL)

    def in_order(self, things: Sequence[T]) -> Sequence[T]:
        """Every other turn the other way round: neither gains from being second."""
        return things if self.turn % 2 else things[::-1]
