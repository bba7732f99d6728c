"""Where the database is: at DATABASE_URL, or embedded in the state directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workerd.errors import ConfigError

if TYPE_CHECKING:
    from workerd.config import Settings


@dataclass(frozen=True, slots=True)
class Location:
    """`url` for pooled work, `direct` for sessions that LISTEN and hold locks; `pooled`: `url` leads to a transaction pooler."""

    url: str
    direct: str
    pooled: bool
    embedded: bool


def locate(settings: Settings) -> Location:
    """The addresses of the database; starts the embedded one when it is to be used and does not run. Blocks.

    Raises EmbeddedError when that cannot be started, ConfigError on a host that works through a manager alone.
    """
    if settings.manager_url is not None and settings.database_url is None:
        raise ConfigError(
            f"this host works through the manager at {settings.manager_url} (MANAGER_URL) and has no database: "
            "run this where DATABASE_URL is set"
        )
    if settings.database_url is not None:
        url = plain(settings.database_url)
        direct = plain(settings.database_direct_url) if settings.database_direct_url else url
        return Location(url, direct, pooled=settings.database_direct_url is not None, embedded=False)
    from workerd import embedded

    url = embedded.start(settings.state_dir)
    return Location(url, url, pooled=False, embedded=True)


def plain(url: str) -> str:
    """The address as the driver takes it: `postgresql+asyncpg://` and the like are SQLAlchemy's spelling of `postgresql://`."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}{mark}{rest}"
