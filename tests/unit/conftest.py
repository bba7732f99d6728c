"""What unit tests share: a directory, a registry and a logging of their own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from workerd.daemon import own_log
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
    """Logging is after the test what it was before."""
    root, manager = logging.getLogger(), logging.Logger.manager
    handlers, level, raises, hand_on = (
        root.handlers[:],
        root.level,
        logging.raiseExceptions,
        logging.Logger.callHandlers,
    )
    disabled, factory = manager.disable, logging.getLogRecordFactory()
    loggers = [logger for logger in manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    levels = {logger: logger.level for logger in loggers}
    filters = {logger: logger.filters[:] for logger in loggers}
    yield
    for handler in own_log.handlers():
        handler.close()
    own_log._handlers.clear()
    own_log._console.clear()
    logging.Logger.callHandlers = hand_on  # type: ignore[method-assign]
    manager.loggerClass = None
    for logger in manager.loggerDict.values():
        if isinstance(logger, own_log.OwnLogger):
            logger.__class__ = logging.Logger  # type: ignore[assignment]
        if isinstance(logger, logging.Logger):
            logger.disabled, logger.propagate = False, True
            logger.setLevel(levels.get(logger, logging.NOTSET))
            logger.filters[:] = filters.get(logger, [])
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raises
    logging.disable(disabled)
    logging.setLogRecordFactory(factory)
