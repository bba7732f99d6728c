"""Machines of the testbed; where there is none, these tests are skipped and say why."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import make_template
from tests.faults.balance import Books
from tests.faults.cluster import Cluster
from tests.system.systemd.machine import TESTBED, Machine, make_environment
from tests.system.systemd.unit import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg


@pytest.fixture(scope="session")
def environment() -> Iterator[Path]:
    """A Python environment with the project, outside of what systemd's ProtectHome= and PrivateTmp= hide."""
    if not (TESTBED / "real-systemd.sh").exists():
        pytest.skip("the testbed is not here: set TESTBED")
    if os.getuid() != 0:
        pytest.skip("booting a systemd needs root")
    where = Path(tempfile.mkdtemp(prefix="workerd-environment-"))
    where.chmod(0o755)
    try:
        make_environment(where)
        yield where
    finally:
        shutil.rmtree(where)


@pytest.fixture(scope="module")
def machine(environment: Path) -> Iterator[Machine]:
    """A freshly booted one for the tests of a module."""
    with Machine(environment) as booted:
        yield booted


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A PostgreSQL that machines reach too: over TCP."""
    with Cluster() as cluster:
        yield cluster.url[""]


@pytest.fixture(scope="session")
def template(server: str) -> str:
    """That server's own: pytest keeps a session's fixture for whoever asks, whatever `server` it asks with."""
    return make_template(server)


@pytest.fixture
def unit(machine: Machine, dsn: str) -> Iterator[Unit]:
    """`invoice-worker` as `workerctl install` leaves it; uninstalled at the end."""
    installed = Unit(machine, dsn)
    yield installed
    installed.remove()


@pytest.fixture
async def books(db: asyncpg.Connection[asyncpg.Record]) -> Books:
    """The ledger of the test's database: `assert await books.close() == []`, when the daemon has stopped."""
    return await Books.open(db)
