"""What unit tests share: a directory, a registry and a logging of their own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from workerd.daemon.log_file import LogFile
from workerd.tasks import registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, without a .env."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_registry() -> Iterator[None]:
    """An empty registry of tasks; what the test declares is forgotten."""
    before = dict(registry)
    registry.clear()
    yield
    registry.clear()
    registry.update(before)


@pytest.fixture
def own_logging() -> Iterator[None]:
    """The root logger is after the test what it was before."""
    root = logging.getLogger()
    handlers, level, raises = root.handlers[:], root.level, logging.raiseExceptions
    yield
    ours, root.handlers[:] = root.handlers[:], handlers
    root.setLevel(level)
    logging.raiseExceptions = raises
    for handler in ours:
        if isinstance(handler, LogFile):
            handler.close()
