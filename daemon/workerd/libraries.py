"""Variables that OpenTelemetry and Sentry read themselves, from the environment: in the settings file they may stand as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from workerd.redact import MASK, addresses, masked

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

PREFIXES = ("OTEL_", "SENTRY_")
SECRET = ("HEADERS", "PASSWORD", "TOKEN", "SECRET")  # parts of the names of those that are not shown


class Variable(NamedTuple):
    """`source`: where it was read, as of a setting."""

    value: str
    source: str


def read(
    environ: Mapping[str, str], entries: Mapping[str, str], file: Path, settings: Collection[str]
) -> dict[str, Variable]:
    """Those that are set, by name; the environment goes before the file. What is a setting of ours is none of them."""
    found = {key.upper(): Variable(value, f"{key.upper()} in {file}") for key, value in entries.items()}
    found |= {key: Variable(value, f"{key} in the environment") for key, value in environ.items()}
    return {
        name: each
        for name, each in sorted(found.items())
        if name.startswith(PREFIXES) and name not in settings and each.value
    }


def shown(name: str, value: str) -> str:
    """The value for people."""
    if any(part in name for part in SECRET):
        return MASK
    return (
        masked(value) if value.startswith(("http://", "https://")) else addresses(value)
    )  # a key may stand in an address
