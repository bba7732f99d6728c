"""supervisord and pm2, the real ones; where they cannot be had, these tests are skipped and say why."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.system.supervisors.pm2 import Pm2, install
from tests.system.supervisors.supervisor import PROGRAMS, Supervisord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import Ctl


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Where `workerctl install` writes."""
    return tmp_path / "files"


@pytest.fixture
def supervisord(ctl: Ctl, files: Path) -> Iterator[Supervisord]:
    """A supervisord that does not run yet."""
    if not (PROGRAMS / "supervisord").exists():
        pytest.skip("there is no supervisor here: pip install supervisor")
    ctl.environment["PATH"] = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    started = Supervisord(ctl, files)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def pm2_programs() -> Path:
    """Where pm2 is installed."""
    return install()


@pytest.fixture
def pm2(ctl: Ctl, pm2_programs: Path, tmp_path: Path) -> Iterator[Pm2]:
    """A pm2 that keeps nothing yet; `workerctl` finds it."""
    own = Pm2(pm2_programs, tmp_path / "pm2")
    ctl.environment |= own.environment
    yield own
    own("kill")
