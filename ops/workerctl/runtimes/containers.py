"""The containers that carry the label of a daemon, through the Docker SDK."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerd.errors import ConfigError, WorkerdError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker.models.containers import Container

LABEL = "workerd.name"
NUMBER = "com.docker.compose.container-number"
SOCKET = Path("/var/run/docker.sock")


def can_be() -> bool:
    """Whether the SDK is installed and an engine may answer: cheap, for those who have no Docker."""
    return find_spec("docker") is not None and ("DOCKER_HOST" in os.environ or SOCKET.exists())


@contextmanager
def refusals() -> Iterator[None]:
    """What the engine refuses, as a WorkerdError of one line."""
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except APIError as error:
        raise WorkerdError(f"Docker refuses: {error.explanation or error}") from None
    except (DockerException, RequestException) as error:
        where = os.environ.get("DOCKER_HOST", str(SOCKET))
        raise WorkerdError(f"the Docker engine at {where} does not answer: {_innermost(error)}") from None


class Containers:
    """Those labelled `workerd.name=NAME`, whether compose made them or somebody else."""

    def __init__(self, name: str) -> None:
        """Raises ConfigError without the SDK, WorkerdError where no engine answers."""
        if find_spec("docker") is None:
            raise ConfigError("the Docker SDK is not installed: pip install 'workerd[docker]'")
        import docker

        self._name = name
        with refusals():
            self._client = docker.from_env()

    def all(self) -> list[Container]:
        """By number, stopped ones too."""
        with refusals():
            found = self._client.containers.list(
                all=True, filters={"label": f"{LABEL}={self._name}"}, ignore_removed=True
            )
        return sorted(found, key=lambda container: (number_of(container), container.name or ""))

    def running(self) -> list[Container]:
        return [container for container in self.all() if container.status in ("running", "restarting", "paused")]

    def copy(self, original: Container, number: int) -> Container:
        """A further container like this one, as compose would make it: compose counts it as its own."""
        was: dict[str, Any] = original.attrs
        config = {key: value for key, value in was["Config"].items() if key not in ("Hostname", "Image")}
        labels = {**config["Labels"], **({NUMBER: str(number)} if NUMBER in config["Labels"] else {})}
        name = f"{re.sub(r'[-_][0-9]+$', '', original.name or '')}-{number}"
        first, *others = was["NetworkSettings"]["Networks"].items() or [("none", {})]
        body = {
            **config,
            "Image": was["Image"],
            "Labels": labels,
            "HostConfig": was["HostConfig"],
            "NetworkingConfig": {"EndpointsConfig": {first[0]: {"Aliases": _aliases(original, first[1])}}},
        }
        with refusals():
            made = self._client.containers.get(self._client.api.create_container_from_config(body, name)["Id"])  # type: ignore[no-untyped-call]
            for network, endpoint in others:
                self._client.networks.get(network).connect(made, aliases=_aliases(original, endpoint))
        return made

    def starts(self, since: float) -> Iterator[tuple[Container, float]]:
        """Each container of ours that is started after a moment, and when, in seconds of the epoch; for ever."""
        filters = {"type": "container", "event": "start", "label": f"{LABEL}={self._name}"}
        with refusals():
            events = self._client.events(since=since, decode=True, filters=filters)  # type: ignore[call-overload] # fractions too
            for event in events:
                yield self._client.containers.get(event["id"]), event["timeNano"] / 1e9


def number_of(container: Container) -> int:
    """Compose's number of a container, else the one that its name ends with, else 1."""
    name = container.name or ""
    found = container.labels.get(NUMBER) or name.removeprefix(name.rstrip("0123456789"))
    return int(found or 1)


def ask(container: Container, *words: str) -> tuple[int, str, str]:
    """Run `workerctl` beside the daemon in its container: exit code, output, complaint."""
    with refusals():
        code, streams = container.exec_run(["workerctl", *words], demux=True)
    output, complaint = (bytes(text or b"").decode(errors="replace") for text in streams)
    return code or 0, output, complaint.strip().removeprefix("workerctl: ")


def _aliases(container: Container, endpoint: dict[str, Any]) -> list[str]:
    """Names in a network that are not the container's own."""
    own = {container.name, container.short_id}
    return [alias for alias in endpoint.get("Aliases") or [] if alias not in own]


def _innermost(error: BaseException) -> str:
    """The system's own words below those of three libraries."""
    found = re.findall(r"(?:Error|denied)\(\d+, '([^']+)'\)", str(error))
    return found[-1] if found else str(error)
