"""Values of the command line that are plainly right: typer would import pydantic, which takes longer than most commands, to see it."""

from __future__ import annotations

import re
from typing import Any, get_args, get_origin

from typer.core import TyperArgument, TyperOption

_NUMBER = re.compile(r"-?[0-9]{1,15}")
_DOUBTFUL = object()


def take() -> None:
    """Let parameters take what is plainly right as it is, from now on; typer says what is wrong with the rest."""
    for kind in (TyperArgument, TyperOption):
        kind.process_value = _taking(kind.process_value)  # type: ignore[method-assign]


def _taking(typers: Any) -> Any:
    def process_value(param: Any, ctx: Any, value: Any) -> Any:
        if not hasattr(param, "type_descriptor"):  # another typer, which keeps the parameter's type elsewhere
            return typers(param, ctx, value)
        taken = _many(param, value) if param.multiple or param.nargs != 1 else _one(param, value)
        if taken is _DOUBTFUL:
            return typers(param, ctx, value)
        return taken if param.callback is None else param.callback(ctx, param, taken)

    return process_value


def _one(param: Any, value: Any) -> Any:
    if value is None:
        return _DOUBTFUL if param.required else None
    return _converted(value, param.type_descriptor.annotation, param.type_descriptor.parameter_info)


def _many(param: Any, value: Any) -> Any:
    kind = param.type_descriptor.annotation
    if not value:
        return _DOUBTFUL if param.required else ()
    if get_origin(kind) is not list or not isinstance(value, (tuple, list)):
        return _DOUBTFUL
    info = param.type_descriptor.parameter_info
    found = [_converted(each, get_args(kind)[0], info) for each in value]
    return _DOUBTFUL if any(each is _DOUBTFUL for each in found) else found


def _converted(value: Any, kind: Any, info: Any) -> Any:
    """The value of a text, or of a default, that needs no second look."""
    if info.parser is not None:
        return _DOUBTFUL
    if kind in (int, float) and isinstance(value, str) and _NUMBER.fullmatch(value):
        value = kind(value)
    if type(value) is not kind or kind not in (str, bool, int, float):
        return _DOUBTFUL
    is_within = kind in (str, bool) or (
        (info.min is None or info.min <= value) and (info.max is None or value <= info.max)
    )
    return value if is_within else _DOUBTFUL
