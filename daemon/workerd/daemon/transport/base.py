"""What a daemon asks of its transport. All of it is fenced by the node, and raises DatabaseError or one of CONNECTION_ERRORS in trouble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractAsyncContextManager

    from workerd.job import AnyConnection
    from workerd.job_lines import JobLines
    from workerd.queue.claim import Answer, Claimed, Wanted
    from workerd.queue.finish import Finished, Lease
    from workerd.queue.lane import Lane
    from workerd.queue.node import Figures, Registration
    from workerd.queue.orders import Order
    from workerd.queue.progress import Progress
    from workerd.queue.tally import Tally


class Session(Protocol):
    """The claimer's: one question at a time."""

    @property
    def is_closed(self) -> bool: ...
    def terminate(self) -> None: ...

    async def host(self) -> str:
        """What is at the other end, for people."""

    async def listen(self, heard: Callable[[str], None], lost: Callable[[], None]) -> None:
        """From now on call `heard` with each notification, and `lost` when the session has ended."""

    async def lanes(self, node: int, queues: Collection[str], name: str) -> list[Lane]: ...
    async def cycle(self, node: int, ended: Sequence[Finished], wanted: Wanted) -> tuple[list[bool], Answer]: ...
    async def write(self, node: int, ended: list[Finished]) -> list[bool]: ...
    async def leases(self, node: int) -> list[Lease]: ...
    async def give_back(self, node: int, n: int, positions: list[int], ttl: float) -> None: ...
    async def orders(self, node: int) -> list[Order]: ...
    async def order_done(self, node: int, order: int, result: dict[str, Any] | None, error: str | None) -> None: ...
    async def tally(self, node: int, tallies: dict[tuple[str, str], Tally]) -> None: ...


class Presence(Protocol):
    """The lease thread's: what shows the others that this node lives."""

    def terminate(self) -> None: ...
    def on_lost(self, lost: Callable[[], None]) -> None: ...

    async def lock(self, node: int) -> bool:
        """Hold what goes with this session alone; False when an earlier one holds it still."""

    async def unlock(self) -> None: ...
    async def register(self, node: int, about: Registration, workers: int) -> None: ...
    async def beat(self, node: int, figures: Figures) -> bool: ...
    async def leave(self, node: int, figures: Figures) -> None: ...


class Desk(Protocol):
    """That of running jobs."""

    def connection(self) -> AbstractAsyncContextManager[AnyConnection]:
        """Raises JobError where there are none."""

    async def report(self, node: int, reports: Sequence[Progress]) -> None: ...
    async def keep_lines(self, node: int, logged: Sequence[tuple[Claimed, JobLines]]) -> None: ...
    async def steps(self, job: Claimed) -> dict[str, str]: ...
    async def keep_step(self, job: Claimed, name: str, result: str) -> str | None: ...
    async def look(self, job: Claimed, event: str, timeout: float) -> tuple[str | None, float | None]: ...
    async def free_key(self, job: Claimed) -> None: ...
    async def parents(self, job: Claimed) -> dict[int, Any]: ...


class Transport(Protocol):
    """Made once by a daemon. `place` is where it leads to, for people; `direct` the address of the database, None without one."""

    place: str
    direct: str | None

    async def open(self) -> Session:
        """The claimer's first session; from now on there are a desk and the default queue of this process. Raises DatabaseError."""

    async def session(self) -> Session:
        """Another one, when that was lost."""

    async def is_stranded(self, session: Session) -> bool:
        """Whether nobody works on what the session has asked and waits for."""

    async def presence(self, name: str, timeout: float, limit: float) -> Presence:
        """`timeout`: seconds to connect, `limit`: for each question. Belongs to the loop in which it is called."""

    @property
    def desk(self) -> Desk: ...

    async def on_lost(self) -> None:
        """A session was lost: trust no other one, and bring the server back where it is ours."""

    def close(self) -> None:
        """Drop what is open for jobs."""
