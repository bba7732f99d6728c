"""Values of settings that cannot be used, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workerd.redact import is_secret, masked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def told(reasons: Mapping[str, str], values: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[str]:
    """A line for each: the setting, its value, what is allowed, and where it was read."""
    for name, reason in reasons.items():
        text = str(values.get(name, ""))
        value = masked(text) if is_secret(name) else text
        yield f"{name.upper()}={value!r}: {reason} ({sources[name]})"
