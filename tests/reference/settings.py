"""Every setting, from the model."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tests.reference.page import code, page, table
from workerd import config
from workerd.daemon.reload import IN_PLACE
from workerd.redact import is_secret
from workerd.settings import Names, Seconds, Settings, Size

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

INTRODUCTION = (
    "How they are read, and what may be written for a duration or a size, is in [settings](../settings.md). Each is a flag too: "
    "`JOB_TIMEOUT` is `--job-timeout`. A SIGHUP takes in those that change in place; any other change hands over to a new process."
)
COMPUTED = {  # defaults that depend on the host
    "app_dir": "the working directory",
    "state_dir": "systemd's, else `~/.local/state/workerd`",
    "runtime_dir": "systemd's, else `$XDG_RUNTIME_DIR/workerd`",
    "log_dir": "systemd's, else `STATE_DIR/log`",
}
NONE = "–"  # noqa: RUF001 - as tables have it
KINDS = {bool: "true or false", int: "number", float: "duration", str: "text", Path: "path"}
LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
SHOWN_LIMIT = 2**32  # a larger one says how it is stored, not what is sensible


def text() -> str:
    hints = typing.get_type_hints(Settings, include_extras=True)
    rows = [_row(name, info, hints[name]) for name, info in Settings.model_fields.items()]
    return page("Settings", INTRODUCTION, table(("setting", "what", "value", "default", "aliases", ""), rows))


def _row(name: str, info: FieldInfo, hint: Any) -> tuple[str, ...]:
    own, *aliases = config.names(name)
    extra: Any = info.json_schema_extra
    shown = [code(key) + (" (ms)" if key in extra["milliseconds"] else "") for key in aliases]
    marks = [mark for mark, holds in (("secret", is_secret(name)), ("changes in place", name in IN_PLACE)) if holds]
    return (
        code(own),
        str(info.description),
        _kind(hint, info),
        _default(name, info),
        ", ".join(shown),
        ", ".join(marks),
    )


def _kind(hint: Any, info: FieldInfo) -> str:
    show = _size if _name(hint) == "size" else "{:g}".format
    limits = [
        f"{sign} {show(limit)}"
        for each in info.metadata
        for word, sign in LIMITS.items()
        if (limit := getattr(each, word, None)) is not None and abs(limit) < SHOWN_LIMIT
    ]
    return ", ".join([_name(hint), *limits])


def _name(hint: Any) -> str:
    for known, name in ((Seconds, "duration"), (Size, "size"), (Names, "list")):
        if hint == known or known in typing.get_args(hint):
            return name
    origin = typing.get_origin(hint)
    if origin is Literal:
        return ", ".join(map(code, typing.get_args(hint)))
    if origin is typing.Annotated:
        return _name(typing.get_args(hint)[0])
    if origin in (types.UnionType, typing.Union):
        return _name(next(each for each in typing.get_args(hint) if each is not type(None)))
    return KINDS[hint]


def _default(name: str, info: FieldInfo) -> str:
    if name in COMPUTED:
        return COMPUTED[name]
    value = info.default
    if value is None or value in ("", ()):
        return NONE
    if isinstance(value, tuple):
        return code(",".join(value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return _duration(value)
    return _size(value) if isinstance(value, int) and value % 2**20 == 0 and value else str(value)


def _size(size: float) -> str:
    return f"{size / 2**20:g}M"


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "days"), (60, "min")):
        if seconds > unit and seconds % unit == 0:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"
