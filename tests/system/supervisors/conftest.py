"""supervisord and pm2, the real ones; where they cannot be had, these tests are skipped and say why."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

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
