"""The parent: stays where the starter watches one process, while daemons take each other's place below it.

It is what systemd is elsewhere: it hears READY and MAINPID from its children by the same protocol (see sd_notify(3)), passes signals on
to the daemon in charge, and ends with its exit code. It lives as long as the container: so it begins anew, as a program that knows
this file alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys

PARENT = "WORKERD_PARENT"  # in the environment of the children: the parent's process id
BACKGROUND = "WORKERD_BACKGROUND"  # set by `workerctl start`: nobody watches the process, nor reads its standard error
SUCCEEDS = "WORKERD_SUCCEEDS"  # set for a process that is to take another one's place: the file descriptor of its end of their channel
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h: orphaned descendants become our children


def is_needed() -> bool:
    """Whether the starter watches this one process: it is neither systemd, which is told who has taken over, nor `workerctl start`."""
    return not os.environ.keys() & {"NOTIFY_SOCKET", BACKGROUND, SUCCEEDS}


def is_systemd() -> bool:
    """Whether a service manager watches us, which ends whatever a service leaves behind."""
    return "NOTIFY_SOCKET" in os.environ and not os.environ.keys() & {BACKGROUND, PARENT}


def become_subreaper() -> None:
    """Processes below us whose parent ends become our children."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stay() -> None:
    """Fork: the child returns and goes on as the daemon; this process stays until the last daemon has ended, and exits as it did."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    listener.bind("")  # the kernel picks an abstract name
    become_subreaper()
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # kept for the program that begins
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        os.environ["NOTIFY_SOCKET"] = "@" + listener.getsockname()[1:].decode()
        os.environ[PARENT] = str(parent)
        listener.close()
        return
    listener.set_inheritable(True)
    os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, str(listener.fileno()), str(child)])  # noqa: S606 - no shell wanted


def is_gone() -> bool:
    """Whether we had such a parent and it was killed."""
    return PARENT in os.environ and os.getppid() != int(os.environ[PARENT])


class Parent:
    """`main` is the daemon in charge."""

    def __init__(self, listener: socket.socket, main: int) -> None:
        self._listener = listener
        self._main = main
        self._daemons = {main}
        self._code: int | None = None  # of the daemon in charge, when it has ended

    def run(self) -> int:
        """Returns the exit code for the starter."""
        wake, woken = socket.socketpair()
        for end in (wake, woken, self._listener):
            end.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        for handled in (*PASSED_ON, signal.SIGCHLD):
            signal.signal(handled, _noted)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        self._reap()
        while self._code is None or self._daemons:
            select.select([wake, self._listener], [], [])
            with contextlib.suppress(BlockingIOError):
                self._hear()
            with contextlib.suppress(BlockingIOError):
                for number in wake.recv(4096):
                    if number == signal.SIGCHLD:
                        self._reap()
                    else:
                        self._pass_on(number)
        return self._code

    def _hear(self) -> None:
        while True:
            text, ancillary, _, _ = self._listener.recvmsg(4096, socket.CMSG_SPACE(12))
            uids = [
                int.from_bytes(data[4:8], sys.byteorder)
                for _, kind, data in ancillary
                if kind == socket.SCM_CREDENTIALS
            ]
            if uids != [os.getuid()]:
                continue
            for line in text.decode(errors="replace").splitlines():
                name, _, value = line.partition("=")
                if name == "MAINPID" and value.isdigit():
                    self._main = int(value)
                    self._daemons.add(self._main)

    def _pass_on(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._main, number)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._hear()  # who is in charge, before it is asked who has ended
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._daemons.clear()
                self._code = 1 if self._code is None else self._code
                return
            if pid == 0:
                return
            self._daemons.discard(pid)
            if pid == self._main:
                code = os.waitstatus_to_exitcode(status)
                self._code = code if code >= 0 else 128 - code
                for (
                    other
                ) in self._daemons:  # they drain as long as they like while somebody is in charge, not otherwise
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(other, signal.SIGTERM)


def _noted(_number: int, _frame: object) -> None:
    """The wake-up descriptor carries it to the loop."""


if __name__ == "__main__":
    sys.exit(Parent(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])).run())
