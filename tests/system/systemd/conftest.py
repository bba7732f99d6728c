"""Machines of the testbed; where there is none, these tests are skipped and say why."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.conftest import make_template
from tests.faults.balance import Books
from tests.faults.cluster import Cluster
from tests.shared import kept, of_this_run
from tests.system.systemd.environment import make_environment
from tests.system.systemd.machine import TESTBED, Machine
from tests.system.systemd.unit import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import asyncpg


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python environment with the project, one for all processes of this run."""
    if not (TESTBED / "real-systemd.sh").exists():
        pytest.skip("the testbed is not here: set TESTBED")
    if os.getuid() != 0:
        pytest.skip("booting a systemd needs root")
    return kept(of_this_run(tmp_path_factory) / "environment", make_environment)


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
