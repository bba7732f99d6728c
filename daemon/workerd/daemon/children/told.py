"""What a child tells the daemon, and asks it, while its handler runs."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from workerd import codec
from workerd.codec import storable
from workerd.daemon.children import wire
from workerd.daemon.children.questions import found
from workerd.daemon.done import Done
from workerd.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workerd.job import Job


class Channel:
    """The child's end of the pipe."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._socket: socket.socket | None = socket.socket(fileno=descriptor)
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # one at a time awaits what the daemon says
        os.register_at_fork(after_in_child=self._abandon)

    def send(self, **message: Any) -> None:
        """From any thread; nothing where the process is a fork of the child, which has no business with the daemon."""
        data = wire.pack(message)
        with self._lock:
            if self._socket is not None:
                self._socket.sendall(data)

    @property
    def abandoned(self) -> bool:
        """Whether this process is a fork of the child."""
        return self._socket is None

    def receive(self) -> dict[str, Any] | None:
        """The next message, None when the daemon has closed its end."""
        with self._turn:
            return self._receive()

    def ask(self, **message: Any) -> dict[str, Any]:
        """The daemon's answer to a question, from any thread while a job runs. Raises JobError where nobody answers."""
        with self._turn:
            self.send(**message)
            said = None if self._socket is None else self._receive()
        if said is None:
            raise JobError(
                "the daemon does not answer this process: a fork of it has no steps, nor has one whose daemon ends"
            )
        return said

    def _receive(self) -> dict[str, Any] | None:
        head = self._exactly(wire.LENGTH)
        body = None if head is None else self._exactly(int.from_bytes(head))
        return None if body is None else wire.unpack(body)

    def _exactly(self, count: int) -> bytes | None:
        assert self._socket is not None
        data = bytearray()
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                return None
            data += part
        return bytes(data)

    def _abandon(self) -> None:
        self._lock, self._turn = threading.Lock(), threading.Lock()
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class ChildHost:
    """The `Host` of a job in a child."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def report(self, job: Job, fraction: float, message: str | None) -> Awaitable[None]:
        text = None if message is None else storable(message)
        self._channel.send(kind="progress", id=job.id, fraction=fraction, message=text)
        return Done()

    def log(self, job: Job, message: str, level: str) -> None:
        self._channel.send(kind="line", id=job.id, message=storable(message), level=level)

    def connection(self) -> NoReturn:
        raise JobError("a cpu=True task runs in a process of its own, which has no connection of the daemon: open one")

    def step(self, job: Job, name: str, call: Callable[[], Any]) -> Any:
        known = self._channel.ask(kind="step", id=job.id, name=name)
        if known["kind"] == "not done":
            text = codec.dumps(call(), f"the result of the step {name}")
            known = self._channel.ask(kind="keep", id=job.id, name=name, text=text)
        return found(known)

    def wait_for(self, job: Job, event: str, timeout: float | None) -> Any:
        return found(self._channel.ask(kind="wait", id=job.id, name=event, timeout=timeout))

    def finish_in(self, job: Job, connection: object, result: object) -> NoReturn:
        raise JobError(f"a cpu=True task cannot use finish_in: return the result of job {job.id}, or drop cpu=True")


class Forward(logging.Handler):
    """Sends records of the log to the daemon, whose log they become part of."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self.setFormatter(logging.Formatter("%(message)s"))  # and the traceback, if there is one

    def emit(self, record: logging.LogRecord) -> None:
        if self._channel.abandoned:  # a fork writes where the programs of a handler write
            print(self.format(record), file=sys.__stderr__, flush=True)
            return
        try:
            fields = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
            self._channel.send(
                kind="log", record={**fields, "msg": storable(self.format(record)), "created": record.created}
            )
        except Exception:  # noqa: BLE001 - as every handler of logging does
            print(record.getMessage(), file=sys.__stderr__)
