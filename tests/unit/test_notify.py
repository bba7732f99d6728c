"""What the supervisor is told."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from workerd.daemon.notify import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(path)
        bound.settimeout(5)
        yield bound


def _heard(listener: socket.socket) -> list[str]:
    return listener.recv(65536).decode().split("\n")


def test_a_reload_begins_with_the_moment_of_its_begin(listener: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Supervisor().reloading()
    word, moment = _heard(listener)
    assert word == "RELOADING=1"
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_who_succeeds_is_silent_until_it_is_ready(listener: socket.socket) -> None:
    supervisor = Supervisor(succeeds=True)
    supervisor.starting()
    supervisor.extend(30)
    supervisor.alive()
    supervisor.status("not yet")
    supervisor.ready("4 workers")
    assert _heard(listener) == ["READY=1", "STATUS=4 workers", f"MAINPID={os.getpid()}"]


def test_after_a_hand_over_it_is_silent_for_ever(listener: socket.socket) -> None:
    supervisor = Supervisor()
    supervisor.hand_over(4711)
    assert _heard(listener) == ["MAINPID=4711", "READY=1"]
    supervisor.alive()
    supervisor.status("late")
    supervisor.extend(30)
    supervisor.stopping()
    supervisor.ready("late")
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.recv(65536)


def test_a_status_is_said_when_it_is_news(listener: socket.socket) -> None:
    supervisor = Supervisor()
    for text in ("one", "one", "two"):
        supervisor.status(text)
    assert [_heard(listener), _heard(listener)] == [["STATUS=one"], ["STATUS=two"]]


def test_more_time_is_asked_for_in_microseconds(listener: socket.socket) -> None:
    Supervisor().extend(1.5)
    assert _heard(listener) == ["EXTEND_TIMEOUT_USEC=1500000"]


def test_what_must_not_be_lost_waits_for_a_supervisor_that_is_slow(listener: socket.socket) -> None:
    supervisor = Supervisor()
    for number in range(2000):  # more than its socket takes: the rest is dropped
        supervisor.status(str(number))
    said = threading.Thread(target=supervisor.ready, args=("late",))
    said.start()
    heard = _heard(listener)
    said.join()
    while "READY=1" not in heard:
        heard = _heard(listener)
    assert heard[1:] == ["STATUS=late", f"MAINPID={os.getpid()}"]


@pytest.mark.parametrize(("pid", "interval"), [(os.getpid(), 0.5), (1, None)], ids=["ours", "another"])
def test_the_watchdog_is_fed_by_the_process_that_is_watched(
    pid: int, interval: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", str(pid))
    assert Supervisor().watchdog_interval == interval


def test_where_nobody_listens_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    supervisor = Supervisor()
    supervisor.ready("fine")
    supervisor.alive()
