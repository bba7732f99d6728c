"""The settings as a file that systemd, python-dotenv and shells read alike."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from workerd import config
from workerd.redact import is_secret, masked
from workerd.settings import Settings

if TYPE_CHECKING:
    from workerd.config import Configuration

PLACES = frozenset({"name", "state_dir", "runtime_dir", "log_dir"})  # the installation decides them
# What a container has of its own: its name, its directories, the address of its metrics.
OWN_OF_CONTAINERS = {
    "ENABLE_METRICS",
    "METRICS_HOST",
    "METRICS_PORT",
    "NODE_NAME",
    "NODE_ID",
    "APP_DIR",
    "ATTACHMENTS_DIR",
    "LOG_FILE",
    "ERROR_LOG_FILE",
    "LOG_STDERR",
}
_SECRETS = {key for name in Settings.model_fields if is_secret(name) for key in config.names(name)}


def entries(configuration: Configuration) -> dict[str, str]:
    """The settings that were given, by key."""
    given = [name for name, source in configuration.sources.items() if source != "default" and name not in PLACES]
    return {name.upper(): _plain(getattr(configuration.settings, name)) for name in given}


def filled(text: str, entries: dict[str, str]) -> str:
    """The text of a file with these entries: in place of the line for the same key, else of one that is commented out, else at the end."""
    lines = text.splitlines()
    for key, value in entries.items():
        line = f"{key}={_quoted(value)}"
        places = (n for start in (f"{key}=", f"#{key}=") for n, each in enumerate(lines) if each.startswith(start))
        at = next(places, None)
        if at is None:
            lines.append(line)
        else:
            lines[at] = line
    return "\n".join(lines) + "\n"


def without_secrets(text: str) -> str:
    """The text of such a file for people."""
    return "".join(_masked(line) for line in text.splitlines(keepends=True))


def _masked(line: str) -> str:
    key, mark, value = line.partition("=")
    secret = mark and key.strip().upper().removeprefix("WORKERD_") in _SECRETS
    return f"{key}={masked(value.strip())}\n" if secret else line


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _quoted(value: str) -> str:
    if re.fullmatch(r"[\w@%+=:,./?&~-]*", value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
