"""Where a client that names no address finds the queue: where the settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.locate import Location
    from workerd.settings import Settings

guards: list[
    Callable[[Settings], None]
] = []  # may raise: the pytest plugin keeps tests away from what the settings lead to


def configured() -> Location:
    """The addresses of the settings. Blocks where the embedded database has to be started. Raises ConfigError, EmbeddedError."""
    from workerd.config import load
    from workerd.locate import locate

    settings = load().settings
    for guard in guards:
        guard(settings)
    return locate(settings)
