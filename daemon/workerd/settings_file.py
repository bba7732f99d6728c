"""The settings file: KEY=VALUE on each line, as python-dotenv reads it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from workerd.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from dotenv.parser import Binding


def read(path: Path, *, required: bool) -> tuple[dict[str, str], list[str]]:
    """The entries of the file, and a warning for each line that is none. Raises ConfigError when it cannot be read."""
    try:
        if not path.is_file():
            if required:
                raise ConfigError(f"the settings file {path} does not exist (named by --config)")
            return {}, []
        from dotenv import dotenv_values
        from dotenv.parser import parse_stream

        bindings = list(parse_stream(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error}") from error
    # python-dotenv gets what it can parse alone: its own word about the rest does not name the file.
    parsed = "".join(each.original.string for each in bindings if not each.error)
    entries = {key: value for key, value in dotenv_values(stream=io.StringIO(parsed)).items() if value is not None}
    return entries, [f"{path}: line {_line(each)} is not KEY=VALUE" for each in bindings if _is_none(each)]


def _is_none(binding: Binding) -> bool:
    return binding.error or (binding.key is not None and binding.value is None)


def _line(binding: Binding) -> int:
    """Where it stands: the text of a binding begins with the empty lines before it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
