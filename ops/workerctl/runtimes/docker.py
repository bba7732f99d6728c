"""A daemon as containers: all that carry the label `workerd.name=NAME`, as compose gives it to them."""

from __future__ import annotations

import json
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workerctl.runtimes import container_log
from workerctl.runtimes.containers import LABEL, Containers, ask, can_be, number_of, refusals
from workerctl.runtimes.runtime import Log, Runtime
from workerd.errors import ConfigError, NotRunning, WorkerdError

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker.models.containers import Container

START_LIMIT = 120.0  # seconds
GRACE = 20.0  # seconds beyond the drain that a stopping daemon needs to write its last results
LOOK = 0.2  # seconds between two questions whether a container is ready
OURS = ("--name", "--workers", "--config")  # flags that say which daemon, how many, where commands read settings
HERE = ("--runtime", "local")  # for the `workerctl` beside the daemon


class Docker(Runtime):
    """What is multiplied are containers: `scale 3` makes three, by copies of the first one or by removing the last ones."""

    name = "docker"

    def is_there(self) -> bool:
        try:
            return can_be() and bool(self._containers.all())
        except WorkerdError:  # no engine, or none for us
            return False

    def who(self) -> str | None:
        count = len(self._containers.running())
        return _containers(count) if count else None

    def start(self, count: int | None) -> None:
        other = [flag for flag in self.flags if flag.partition("=")[0] not in OURS]
        if other:
            raise ConfigError(
                f"containers have their settings from their environment (.env beside compose.yaml): set {other[0]} there"
            )
        known = self._known()
        self._resize(known, len(known) if count is None else count)
        self._each(_await_ready)

    def stop(self, timeout: float | None, *, now: bool) -> None:
        self._must_run()
        if now or timeout is not None:
            self._each(lambda container: _drain(container, 0.0 if timeout is None else timeout, now=now))
        self._each(self._stop)

    def reload(self) -> str:
        running = self._must_run()
        for container in running:  # one after the other: where one fails, the others go on as they are
            code, _, complaint = ask(container, "reload", *HERE)
            if code:
                raise WorkerdError(f"{container.name}: {complaint}")
        return f"in {_containers(len(running))}"

    def scale(self, count: int) -> str:
        before = len(self._containers.running())
        self._resize(self._known(), count)
        self._each(_await_ready)
        return f"{_containers(count)} (were {before})"

    def status(self) -> list[dict[str, Any]]:
        return self._each(self._status)

    def health(self) -> dict[str, Any]:
        sick = [str(container.name) for container in self._must_run() if not _is_ready(container)]
        return {"live": all(self._each(_is_alive)), "ready": not sick, "reason": ", ".join(sick) or None}

    def log(self, most: int, wanted: Callable[[str], bool], *, errors: bool) -> Log:
        now = time.time()
        containers = self._containers.all()
        missing = "" if containers else f"no container has the label {LABEL}={self.settings.name}"

        def chosen(record: str) -> bool:
            return wanted(record) and (not errors or container_log.serious(record))

        running = [container for container in containers if container.status == "running"]
        new = container_log.new(self._containers, running, chosen, now)
        return Log(container_log.last(containers, most, chosen, now), new, missing)

    @cached_property
    def _containers(self) -> Containers:
        return Containers(self.settings.name)

    def _must_run(self) -> list[Container]:
        running = self._containers.running()
        if not running:
            raise NotRunning(f"no container with the label {LABEL}={self.settings.name} runs")
        return running

    def _known(self) -> list[Container]:
        found = self._containers.all()
        if not found:
            raise NotRunning(
                f"no container has the label {LABEL}={self.settings.name}: make the first one with `docker compose up --detach`"
            )
        return found

    def _resize(self, known: list[Container], count: int) -> None:
        """Start what is stopped, copy what is missing, remove what is too much, the last ones first."""
        with refusals():
            for container in known[:count]:
                container.start()  # one that runs stays as it is
            top = max(number_of(container) for container in known)
            for number in range(top + 1, top + 1 + count - len(known)):
                self._containers.copy(known[0], number).start()
        _at_once(self._remove, known[count:])

    def _remove(self, container: Container) -> None:
        self._stop(container)
        with refusals():
            container.remove(v=True)

    def _stop(self, container: Container) -> None:
        """SIGTERM, and SIGKILL after the container's grace period."""
        grace = container.attrs["Config"].get("StopTimeout") or self.settings.drain_timeout + GRACE
        with refusals():
            container.stop(timeout=int(grace))

    def _status(self, container: Container) -> dict[str, Any]:
        mine = {"runtime": self.name, "container": container.name}
        code, told, _ = ask(container, "status", "--json", *HERE) if container.status == "running" else (3, "", "")
        if code:
            return {"name": self.settings.name, **mine, "state": "starting", "pid": container.attrs["State"]["Pid"]}
        return {**json.loads(told), **mine}

    def _each(self, work: Callable[[Container], Any]) -> list[Any]:
        """Do it to all that run, at the same time."""
        return _at_once(work, self._containers.running())


def _at_once(work: Callable[[Container], Any], containers: list[Container]) -> list[Any]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:
        return list(pool.map(work, containers))


def _drain(container: Container, timeout: float, *, now: bool) -> None:
    """Let the daemon end by itself within `timeout` seconds, or now; meanwhile the engine must not start it again."""
    words = ["--now"] if now else ["--timeout", f"{timeout:g}s"]
    with refusals():
        policy = container.attrs["HostConfig"]["RestartPolicy"]
        container.update(restart_policy={"Name": "no"})  # type: ignore[arg-type] # its stub lacks this policy
        try:
            container.exec_run(["workerctl", "stop", *words, *HERE], detach=True)
            container.wait(timeout=timeout + GRACE)
        finally:
            container.update(restart_policy=policy)


def _await_ready(container: Container) -> None:
    """Returns when the daemon can claim jobs. Raises WorkerdError with its last words when it does not get there."""
    limit = time.monotonic() + START_LIMIT
    before = container.attrs["RestartCount"]
    while not _is_ready(container):
        with refusals():
            container.reload()
        if container.status != "running" or container.attrs["RestartCount"] > before or time.monotonic() > limit:
            raise WorkerdError(f"{container.name} did not start: {_last_words(container)}")
        time.sleep(LOOK)


def _is_alive(container: Container, *more: str) -> bool:
    try:
        return ask(container, "health", *more, *HERE)[0] == 0
    except WorkerdError:  # it has just ended
        return False


def _is_ready(container: Container) -> bool:
    return _is_alive(container, "--ready")


def _last_words(container: Container) -> str:
    with refusals():
        lines = container.logs(tail=50).decode(errors="replace").splitlines()
    told = [line.removeprefix("workerd: ") for line in lines if line.startswith("workerd: ")]
    return (told or lines or ["it ended"])[-1]


def _containers(count: int) -> str:
    return "1 container" if count == 1 else f"{count} containers"
