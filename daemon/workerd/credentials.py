"""Secrets that the service manager hands over as files: systemd's LoadCredential, a container's secrets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workerd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

DIRECTORY = "CREDENTIALS_DIRECTORY"  # systemd sets it; containers set it to /run/secrets


def read(environ: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """The settings among the files of that directory, by key in upper case; other files are somebody else's.

    Raises ConfigError when one cannot be read.
    """
    given = environ.get(DIRECTORY)
    if not given:
        return {}
    try:
        files = {path.name.upper(): path for path in sorted(Path(given).iterdir()) if path.name.upper() in known}
        return {key: path.read_text(encoding="utf-8").strip() for key, path in files.items()}
    except FileNotFoundError:  # a container without secrets has no such directory
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"a credential in {given} ({DIRECTORY}) cannot be read: {error}") from error
