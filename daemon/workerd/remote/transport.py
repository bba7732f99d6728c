"""The transport of a node that reaches the queue through a manager."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from workerd.declaration import declared
from workerd.queue import default_queue
from workerd.remote.caller import Addresses, Caller
from workerd.remote.desk import HttpDesk
from workerd.remote.queue import RemoteQueue
from workerd.remote.session import HttpPresence, HttpSession

if TYPE_CHECKING:
    from workerd.config import Settings
    from workerd.tasks import Task

log = logging.getLogger(__name__)


class HttpTransport:
    """`MANAGER_URL` may name several managers, comma separated: the next one is asked when one fails."""

    direct: str | None = None

    def __init__(self, settings: Settings, tasks: dict[str, Task[..., Any]]) -> None:
        assert settings.manager_url is not None
        assert settings.api_token is not None
        self.place = settings.manager_url
        self._addresses = Addresses(settings.manager_url)
        self._token = settings.api_token
        self._declared = declared(settings, tasks)
        self._caller: Caller | None = None

    async def open(self) -> HttpSession:
        log.info("database: through the manager at %s", self.place)
        self._caller = Caller(self._addresses, self._token)
        await self._caller.ask("GET", "/readyz")
        default_queue.set_default(RemoteQueue(self._caller))  # type: ignore[arg-type]  # it has what a handler may use without a connection
        return await self.session()

    async def session(self) -> HttpSession:
        return HttpSession(Caller(self._addresses, self._token))

    async def is_stranded(self, session: object) -> bool:
        """A manager that lives answers in time, or says that the database does not. Raises ManagerError when it does not live."""
        assert self._caller is not None
        await self._caller.ask("GET", "/healthz")
        return False

    async def presence(self, name: str, timeout: float, limit: float) -> HttpPresence:
        caller = Caller(self._addresses, self._token, limit, connect=timeout)
        await caller.ask("GET", "/healthz")
        return HttpPresence(caller, self._declared)

    @property
    def desk(self) -> HttpDesk:
        assert self._caller is not None
        return HttpDesk(self._caller)

    async def on_lost(self) -> None:
        """Nothing is ours to bring back."""

    def close(self) -> None:
        default_queue.set_default(None)
        if self._caller is not None:
            self._caller.close()
