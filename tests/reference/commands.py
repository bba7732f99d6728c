"""Every command of workerctl, from the command table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from typer.main import get_command

from tests.reference.page import code, page, table
from workerctl.app import app

INTRODUCTION = (
    "Every command takes every [setting](settings.md) as a flag, `--config FILE`, and `--help`. Exit codes: 0 fine, 1 failed, "
    "2 wrong usage, 3 not running. What the JSON of scripts holds is in [commands](../commands.md#json-that-scripts-rely-on)."
)
KINDS = {"bool": None, "int": "N", "float": "SECONDS", "str": "TEXT", "Path": "PATH"}


@dataclass(frozen=True)
class Command:
    """`words` is what is typed after workerctl."""

    words: str
    help: str
    example: str
    params: tuple[Any, ...]

    @property
    def options(self) -> frozenset[str]:
        return frozenset(option for each in self.params for option in (*each.opts, *each.secondary_opts))


def commands() -> list[Command]:
    return list(_commands(get_command(app), ()))


def text() -> str:
    return page("Commands", INTRODUCTION, *(_section(command) for command in commands()))


def _commands(group: Any, path: tuple[str, ...]) -> Any:
    for name, each in group.commands.items():
        words = (*path, name)
        if hasattr(each, "commands"):
            yield from _commands(each, words)
        else:
            about, _, example = (each.help or "").partition("Example: ")
            yield Command(" ".join(words), about.strip(), example.strip(), tuple(each.params))


def _section(command: Command) -> str:
    parts = [f"## {command.words}", _prose(command.help)]
    if command.example:
        parts.append(f"For example: {code(command.example)}")
    rows = [(_written(each), each.help or "", _default(each)) for each in command.params if not each.hidden]
    if rows:
        parts.append(table(("argument or option", "what", "default"), rows))
    return "\n\n".join(parts)


def _prose(help_text: str) -> str:
    """Paragraphs; words such as --ready as code."""
    return re.sub(r"(?<![`\w-])(--[a-z][a-z-]*)", r"`\1`", help_text)


def _written(param: Any) -> str:
    if not param.opts[0].startswith("-"):
        return code(param.metavar or param.name.upper())
    kind = KINDS.get(getattr(param.type_descriptor.annotation, "__name__", ""), "VALUE")
    value = "" if param.is_flag else f" {param.metavar or kind}"
    return code(", ".join((*param.opts, *param.secondary_opts)) + value)


def _default(param: Any) -> str | None:
    value = param.default
    if value is None or callable(value) or isinstance(value, bool) or value in ("", (), []):
        return None
    return code(value)
