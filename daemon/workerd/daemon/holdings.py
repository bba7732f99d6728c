"""What this node holds, by its own account: the leases it knows, and the id under which it holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerd.queue.node import new_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workerd.queue.claim import Claimed


class Holdings:
    """The node id of this life, its lease numbers, and the tickets it holds under each.

    A ticket in a lease of the database that is not in here belongs to a claim whose answer was lost.
    """

    def __init__(self, node: int | None = None, last_chance: int = 2) -> None:
        """`last_chance`: crashes from which one more death of the node would fail a job."""
        self.node = new_id() if node is None else node
        self._last_chance = last_chance
        self._endangered: set[Claimed] = set()
        self._n = 0
        self._tickets: dict[int, set[int]] = {}

    def reborn(self, node: int) -> int:
        """Start anew under another id: all that was held is lost. Returns how many leases that were."""
        self.node, lost = node, len(self._tickets)
        self._tickets.clear()
        self._endangered.clear()
        return lost

    def new_lease(self) -> tuple[int, int]:
        """The fence of the next claim: the node and a number never used before."""
        self._n += 1
        return self.node, self._n

    def keep(self, jobs: Iterable[Claimed]) -> None:
        for job in jobs:
            held = self._tickets.get(job.n)
            if held is None:
                held = self._tickets[job.n] = set()
            held.add(job.pos)
            if job.crashes >= self._last_chance:
                self._endangered.add(job)

    @property
    def endangers(self) -> bool:
        """Whether a job on its last chance is held, from its claim until its end is written: then no other may be."""
        return bool(self._endangered)

    def release(self, job: Claimed) -> None:
        self._endangered.discard(job)
        if job.node == self.node:
            self._discard(job.n, job.pos)
            if job.split is not None:
                self._discard(job.split, job.pos)

    def tickets(self, n: int) -> set[int]:
        return self._tickets.get(n, set())

    def begin_split(self, job: Claimed) -> int:
        """The number of the lease to which a job is being moved; both count as held until `end_split`.

        Asked for again since the answer was lost, it is the same one.
        """
        if job.split is None:
            _, job.split = self.new_lease()
            self._tickets.setdefault(job.split, set()).add(job.pos)
        return job.split

    def end_split(self, job: Claimed) -> None:
        """The job is in the other lease now."""
        if job.split is not None:
            self._discard(job.n, job.pos)
            job.n, job.split = job.split, None

    def _discard(self, n: int, pos: int) -> None:
        held = self._tickets.get(n)
        if held is not None:
            held.discard(pos)
            if not held:
                del self._tickets[n]
