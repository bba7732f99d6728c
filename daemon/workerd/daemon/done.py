"""An answer for those who need not wait for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


class Done:
    """An awaitable that is done: `job.progress` of a `def` handler needs no await and tolerates none."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield
