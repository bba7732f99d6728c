"""Reads the settings: flag over environment over credential over file over default, with where each came from."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerd import credentials, libraries, problems, settings_file
from workerd.errors import ConfigError
from workerd.redact import is_secret, masked
from workerd.settings import Settings, WrongValues

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from workerd.libraries import Variable

__all__ = ["Configuration", "Settings", "add_flags", "flags_of", "load"]

# Set for systemd's own purposes, or by other programs with another meaning: taken from flags, files and WORKERD_NAME only.
NOT_FROM_ENVIRONMENT = frozenset({"NAME", "QUEUE_NAME"})
MOVED = "WORKERD_SECRET_FLAGS"  # names the settings that were given as flags and moved into the environment


@dataclass(frozen=True)
class Configuration:
    """The settings, where each came from (`default`, `environment`, `flag --x`, a file), and what looked odd."""

    settings: Settings
    sources: dict[str, str]
    warnings: list[str] = field(default_factory=list)
    libraries: dict[str, Variable] = field(default_factory=dict)

    def shown(self, name: str) -> str:
        """The value of a setting for people: secrets masked, an address without its password."""
        value = getattr(self.settings, name)
        if value is None:
            return ""
        if isinstance(value, tuple):
            return ",".join(value)
        return masked(str(value)) if is_secret(name) else str(value)


def names(name: str) -> tuple[str, ...]:
    """The keys under which a setting is read, in upper case: its own first, then its aliases."""
    return (name.upper(), *Settings.model_fields[name].aliases)


def load(
    flags: Mapping[str, str] | None = None, file: Path | None = None, environ: Mapping[str, str] | None = None
) -> Configuration:
    """Read all settings. `flags` maps names (or aliases) to text; `file` replaces `.env` of the working directory.

    Raises ConfigError with every problem: the setting, its value, what is allowed, and where it was read.
    """
    environ = os.environ if environ is None else environ
    path = file or Path(".env")
    entries, warnings = settings_file.read(path, required=file is not None)
    layers = [
        ({k.upper().replace("-", "_"): v for k, v in (flags or {}).items()}, "flag", True),
        (dict(environ), "environment", False),
        (credentials.read(environ, _KNOWN), "the credentials", True),
        ({k.upper(): v for k, v in entries.items()}, str(path), True),
    ]
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name in Settings.model_fields:
        found = next(_found(name, layers), None)
        sources[name] = "default" if found is None else found[1]
        if found is not None:
            values[name] = found[0]
    try:
        settings = Settings(**values)
    except WrongValues as error:
        raise ConfigError(*problems.told(error.reasons, values, sources)) from None
    others = libraries.read(environ, entries, path, _KNOWN)
    return Configuration(settings, sources, [*warnings, *_near_misses(entries, path)], others)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give a parser one `--flag` for every setting and alias."""
    for name, each in Settings.model_fields.items():
        flags = {key: _flag(key) for key in names(name)}
        text = each.help.replace("%", "%%")
        plain = [flag for key, flag in flags.items() if key not in each.milliseconds]
        parser.add_argument(*plain, dest=name, metavar="VALUE", help=text)
        for key in each.milliseconds:
            parser.add_argument(
                flags[key], dest=name, metavar="MS", type=_in_milliseconds, help=f"{text}, in milliseconds"
            )


def all_flags() -> list[str]:
    """The flags of all settings and aliases."""
    return [_flag(key) for key in _KNOWN]


def flags_of(namespace: argparse.Namespace) -> dict[str, str]:
    """The settings that were given as flags."""
    return {
        name: value for name, value in vars(namespace).items() if name in Settings.model_fields and value is not None
    }


def command_line(flags: Mapping[str, str], file: Path | None) -> list[str]:
    """The flags that give these settings to a process that inherits our environment.

    Secrets are moved into the environment: a command line can be read by every user of the host.
    """
    shown = [f"--config={file}"] if file else []
    moved = [name for name, value in flags.items() if is_secret(name) and value]
    for name in moved:
        os.environ[f"WORKERD_{name.upper()}"] = flags[name]
    if moved:
        os.environ[MOVED] = ",".join(moved)
    return shown + [f"--{name.replace('_', '-')}={value}" for name, value in flags.items() if name not in moved]


def moved_flags(environ: Mapping[str, str]) -> dict[str, str]:
    """The flags that `command_line` moved into this environment."""
    names = environ.get(MOVED, "").split(",")
    return {name: environ[key] for name in names if (key := f"WORKERD_{name.upper()}") in environ}


def _flag(key: str) -> str:
    return "--" + key.lower().replace("_", "-")


_KNOWN = tuple(key for name in Settings.model_fields for key in names(name))


def _found(name: str, layers: list[tuple[dict[str, str], str, bool]]) -> Iterator[tuple[Any, str]]:
    """The values of one setting, the strongest first: by layer, and in each WORKERD_X before X before aliases."""
    milliseconds = Settings.model_fields[name].milliseconds
    for layer, source, plain in layers:
        for key in (f"WORKERD_{name.upper()}", *names(name)):
            text = layer.get(key)
            if text is None or (text == "" and source != "flag") or (not plain and key in NOT_FROM_ENVIRONMENT):
                continue
            shown = (
                _flag(key)
                if source == "flag"
                else f"{key} in {source}"
                if source != "environment"
                else f"{key} in the environment"
            )
            yield _in_milliseconds(text) if key in milliseconds else text, shown


def _in_milliseconds(text: str) -> str:
    """A bare number with its unit; what has one already keeps it."""
    return f"{text.strip()}ms" if re.fullmatch(r"\s*\d+(\.\d+)?\s*", text) else text


def _near_misses(entries: Mapping[str, str], path: Path) -> list[str]:
    """Keys of our file that look like a setting misspelt; everything else in a .env is somebody else's."""
    warnings = []
    for key in entries:
        upper = key.upper().removeprefix("WORKERD_")
        if upper in _KNOWN:
            continue
        close = next((name for name in _KNOWN if _differs_slightly(upper, name)), None)
        if close:
            warnings.append(f"{path}: {key} is no setting, did you mean {close}?")
    return warnings


def _differs_slightly(one: str, other: str) -> bool:
    """Whether two names differ by a typing mistake: DATABASE_ULR is one for DATABASE_URL, DATABASE_USER is not."""
    steps = difflib.SequenceMatcher(a=one, b=other, autojunk=False).get_opcodes()
    changed = sum(max(a2 - a1, b2 - b1) for kind, a1, a2, b1, b2 in steps if kind != "equal")
    return changed <= (2 if len(other) > 9 or sorted(one) == sorted(other) else 1)
