"""What is said about wrong usage: what typer says, with the flags of the settings and what an argument is."""

from __future__ import annotations

import difflib
import re
from typing import Any

from typer.core import TyperCommand


class Counting(TyperCommand):
    """A command with an N: `-1` reaches the check of N, while an option that there is not is named as one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.ignore_unknown_options = any(re.fullmatch(r"-\d+", word) for word in args)
        return super().parse_args(ctx, args)


def told(error: Any) -> str:
    """The text of an error that typer raised."""
    text = str(error.format_message())
    unknown = getattr(error, "option_name", None)
    if unknown is not None and unknown.startswith("--"):
        return f"No such option: {unknown}{_meant(unknown, error.ctx)}"
    if text.startswith("Missing argument") and getattr(error.param, "help", None):
        return f"{text.rstrip('.')}: {error.param.help.rstrip('.')}"
    return text


def _meant(unknown: str, ctx: Any) -> str:
    from workerd import config

    own = [flag for param in ctx.command.params for flag in param.opts] if ctx else []
    close = difflib.get_close_matches(unknown, [*own, *config.all_flags()], n=1)
    return f". Did you mean {close[0]}?" if close else ""
