"""The verbs: what may be asked of a daemon, over its control socket and by orders in the database."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from workerd.daemon import parent
from workerd.errors import ConfigError
from workerd.settings import WORKERS_MAX

if TYPE_CHECKING:
    from workerd.daemon.control import Handler
    from workerd.daemon.departure import Departure
    from workerd.daemon.handover.launch import Launch
    from workerd.daemon.link import Link
    from workerd.daemon.reload import Reload
    from workerd.daemon.status import Status
    from workerd.daemon.workers import Workers

log = logging.getLogger(__name__)


class Verbs:
    """Each takes the request and returns the answer; WorkerdError is a refusal."""

    def __init__(
        self, status: Status, link: Link, workers: Workers, departure: Departure, reload: Reload, launch: Launch
    ) -> None:
        self._status = status
        self._link = link
        self._workers = workers
        self._departure = departure
        self._reload = reload
        self._launch = launch

    @property
    def of_orders(self) -> dict[str, Handler]:
        """Those that other hosts may give."""
        return {"scale": self._scale, "drain": self._drain}

    @property
    def health(self) -> Handler:
        return self._health

    @property
    def of_socket(self) -> dict[str, Handler]:
        own = {"status": self._report, "health": self._health, "launch": self._told, "reload": self._hand_over}
        return {**own, **self.of_orders}

    async def _report(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {**self._status.report(), **self._reload.state()}

    async def _told(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["uid"] not in (0, os.getuid()):
            raise ConfigError("what the daemon was started with has secrets: its own user and root may ask")
        return self._launch.told()

    async def _health(self, _request: dict[str, Any]) -> dict[str, Any]:
        state, stuck, connected = self._status.state, self._status.stuck, self._link.ready.is_set()
        reason = None
        if stuck:
            reason = f"{', '.join(stuck)}: no turn any more"
        elif state not in ("running", "reloading"):
            reason = f"it is {state}"
        elif not connected:
            reason = f"the database is {self._status.connection}"
        return {"live": not stuck, "ready": reason is None, "reason": reason}

    async def _hand_over(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"before": os.getpid(), "pid": await self._reload.hand_over(environment_of_now(request))}

    async def _scale(self, request: dict[str, Any]) -> dict[str, Any]:
        count = request.get("workers")
        if not isinstance(count, int) or not 1 <= count <= WORKERS_MAX:
            raise ConfigError(f"the number of workers is {count}, allowed is 1 to {WORKERS_MAX}")
        if self._status.state != "running":
            raise ConfigError(f"the daemon is {self._status.state}: only a running one can be scaled")
        before = self._workers.count
        self._workers.scale(count)
        log.info("scaled from %s to %s workers", before, count)
        return {"workers": count, "before": before}

    async def _drain(self, request: dict[str, Any]) -> dict[str, Any]:
        timeout = request.get("timeout")
        if request.get("now"):
            self._departure.hurry()
        self._departure.ask(float(timeout) if isinstance(timeout, (int, float)) else None)
        return {"busy": self._workers.busy}


def environment_of_now(request: dict[str, Any]) -> dict[str, str] | None:
    """What systemd gives the processes of our unit now, for it reads EnvironmentFile= anew; None when anybody else asks."""
    given: dict[str, str] = request.get("environment") or {}
    ours = os.environ.get("INVOCATION_ID") if parent.is_systemd() else None
    return given if ours and given.get("INVOCATION_ID") == ours and request["uid"] == os.getuid() else None
