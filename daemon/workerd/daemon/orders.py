"""Orders that reach this node through the database: they are carried out as if given over its control socket."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from workerd.errors import WorkerdError

if TYPE_CHECKING:
    from workerd.daemon.control import Handler
    from workerd.daemon.transport.base import Session
    from workerd.queue.orders import Order

log = logging.getLogger(__name__)


class Orders:
    """Works in the claimer's session."""

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self._handlers = handlers
        self._unwritten: dict[int, tuple[dict[str, Any] | None, str | None]] = {}

    async def carry_out(self, session: Session, node: int) -> None:
        """Carry out what waits for this node. An order whose outcome could not be written is not carried out again."""
        for order in await session.orders(node):
            if order.id not in self._unwritten:
                self._unwritten[order.id] = await self._obey(order)
            await session.order_done(node, order.id, *self._unwritten[order.id])
            del self._unwritten[order.id]

    async def _obey(self, order: Order) -> tuple[dict[str, Any] | None, str | None]:
        log.info("order %s: %s %s", order.id, order.verb, order.arguments or "")
        try:
            return await self._handlers[order.verb](order.arguments), None
        except KeyError:
            return None, f"this version does not know the order {order.verb}"
        except WorkerdError as error:
            log.warning("order %s is refused: %s", order.id, error)
            return None, str(error)
