"""Every setting, from the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.reference.page import code, page, table
from workerd import config
from workerd.redact import is_secret
from workerd.settings import Settings

if TYPE_CHECKING:
    from workerd.setting import Setting

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
LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
SHOWN_LIMIT = 2**32  # a larger one says how it is stored, not what is sensible


def text() -> str:
    rows = [_row(name, each) for name, each in Settings.model_fields.items()]
    return page("Settings", INTRODUCTION, table(("setting", "what", "value", "default", "aliases", ""), rows))


def _row(name: str, about: Setting) -> tuple[str, ...]:
    own, *aliases = config.names(name)
    shown = [code(key) + (" (ms)" if key in about.milliseconds else "") for key in aliases]
    marks = [mark for mark, holds in (("secret", is_secret(name)), ("changes in place", about.in_place)) if holds]
    return code(own), about.help, _kind(about), _default(name, about), ", ".join(shown), ", ".join(marks)


def _kind(about: Setting) -> str:
    show = _size if about.kind.name == "size" else "{:g}".format
    limits = [f"{LIMITS[word]} {show(limit)}" for word, limit in about.limits.items() if abs(limit) < SHOWN_LIMIT]
    return ", ".join([", ".join(map(code, about.kind.words)) or about.kind.name, *limits])


def _default(name: str, about: Setting) -> str:
    if name in COMPUTED:
        return COMPUTED[name]
    value = about.default
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
