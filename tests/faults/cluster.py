"""Servers of the testbed: a primary, on request a standby and PgBouncer, and a proxy that disturbs what passes through it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psutil
import pytest

from tests.faults.claims import free_ports
from tests.support import ROOT

if TYPE_CHECKING:
    from types import TracebackType

TESTBED = Path(os.environ.get("TESTBED", ROOT.parent / "shared" / "testbed"))
FREEZES = 5  # tries to stop all processes of a server


class Cluster:
    """`up` and `down` of the testbed's PostgreSQL; `verb` is one of its commands."""

    def __init__(self, *options: str) -> None:
        if not (TESTBED / "pg-cluster.sh").exists():
            pytest.skip("the testbed is not here: set TESTBED")
        self._options = options
        self._name = f"faults-{uuid4().hex[:8]}"
        self._place = Path("/tmp", f"testbed-pg-{self._name}")  # of its own: the last cluster of one removes it
        self.url: dict[str, str] = {}

    def __enter__(self) -> Cluster:
        try:
            said = self.verb("up", "--port", str(free_ports(3)), *self._options)
        except subprocess.CalledProcessError as error:
            self._down()
            pytest.skip(f"the testbed's servers do not start here: {error.stderr.strip().splitlines()[-1:]}")
        self.url = {name: address.strip("'") for name, address in re.findall(r"export PGURL_?(\w*)=(\S+)", said)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._down()

    def _down(self) -> None:
        """Whatever state the servers are in: pg_ctl waits for a minute for one that was killed and has left its PID file."""
        for file in self._pid_files():
            if not _tree(file):
                file.unlink()
        try:
            self.verb("down", limit=20)
        except subprocess.TimeoutExpired:
            for file in self._pid_files():
                for process in reversed(_tree(file)):
                    process.kill()
                file.unlink()
            self.verb("down")

    def _pid_files(self) -> list[Path]:
        return sorted((self._place / self._name).glob("*/postmaster.pid"))

    @property
    def address(self) -> str:
        """Host and port of the primary."""
        return self.url[""].partition("@")[2].partition("/")[0]

    def verb(self, verb: str, *options: str, limit: float = 60) -> str:
        """Run a command of the testbed, for `limit` seconds at most, and return what it says."""
        command = [str(TESTBED / "pg-cluster.sh"), verb, self._name, *options]
        environment = {
            **os.environ,
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "TESTBED_PG_DIR": str(self._place),
        }
        # the servers that it leaves running must not hold a pipe of ours open
        said = Path(f"/tmp/{self._name}.{verb}")
        with said.open("w+") as out:
            done = subprocess.run(
                command, stdout=out, stderr=subprocess.STDOUT, check=False, env=environment, timeout=limit
            )
            out.seek(0)
            text = out.read()
        said.unlink()
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, text, text)
        return text

    def freeze(self) -> None:
        """Stop every process of the primary where it stands, until `thaw`."""
        for _ in range(
            FREEZES
        ):  # one that ends while the others are stopped fails the command, and it can be run again
            with contextlib.suppress(subprocess.CalledProcessError):
                self.verb("freeze")
                return
        self.verb("freeze")


def _tree(file: Path) -> list[psutil.Process]:
    """The server whose PID is in this file, and its processes; nothing where it has gone, or nobody has reaped it yet."""
    try:
        server = psutil.Process(int(file.read_text().split()[0]))
        return [server, *server.children(recursive=True)] if server.cmdline() else []
    except (psutil.Error, OSError, ValueError, IndexError):
        return []


class Proxy:
    """A TCP proxy before a server; `say` gives it a command of the testbed's tcp-fault-proxy.py."""

    def __init__(self, target: str) -> None:
        if not (TESTBED / "tcp-fault-proxy.py").exists():
            pytest.skip("the testbed is not here: set TESTBED")
        self._target = target
        self.port = free_ports(1)

    async def __aenter__(self) -> Proxy:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(TESTBED / "tcp-fault-proxy.py"),
            str(self.port),
            self._target,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert await self._heard() == "ready"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.kill()
        await self._process.wait()

    async def say(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        assert await self._heard() == "done"

    async def _heard(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    def before(self, dsn: str) -> str:
        """The address `dsn` by way of the proxy."""
        return re.sub(r"@[^/,]+", f"@127.0.0.1:{self.port}", dsn)


class Relay:
    """Passes connections on to a server; those that are stranded stay open, but nothing goes through them any more."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._epoch = 0  # connections of an earlier one are stranded
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers = defaultdict[int, list[asyncio.StreamWriter]](list)

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writers in self._writers.values():
            for writer in writers:
                writer.close()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def strand(self) -> None:
        """Let nothing through the open connections any more."""
        self._epoch += 1

    def bury(self) -> None:
        """Close what was stranded, as the server's keepalive does in time."""
        for epoch, writers in self._writers.items():
            for writer in writers if epoch < self._epoch else ():
                writer.close()

    def before(self, dsn: str) -> str:
        return re.sub(r"@[^/,]+", f"@127.0.0.1:{self.port}", dsn)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._port)
        self._writers[self._epoch] += [writer, back]
        for source, sink in ((reader, back), (there, writer)):
            pipe = asyncio.create_task(self._pass(source, sink, self._epoch))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, epoch: int) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if epoch == self._epoch:
                    sink.write(data)
            if epoch == self._epoch:
                sink.close()
