"""Files for this installation: install, uninstall."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from workerctl import context, render
from workerd.errors import ConfigError, WorkerdError

if TYPE_CHECKING:
    from workerctl.install.target import Target

Name = Annotated[str, typer.Argument(metavar="TARGET", help="systemd or logrotate.")]


def install(
    target: Name,
    only_print: Annotated[bool, typer.Option("--print", help="Print the files, write nothing.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Write over files that differ.")] = False,
) -> int:
    """Write the files that put the daemon, with the settings of now, into the hands of a service manager. Starts and enables nothing.

    Files that lie there already and differ are left as they are, and the difference is shown, unless --replace is given.

    Example: workerctl install systemd --tasks shop.tasks --workers 8
    """
    chosen = _target(target)
    configuration = context.configuration()
    files = chosen.files(configuration)
    if only_print:
        for file in files:
            render.say(f"# {file.path}\n{file.shown(file.text)}")
        return 0
    _as_root(f"install {target}", " (--print shows the files)")
    differ = [diff for file in files if (diff := file.diff())]
    for diff in differ:
        render.say(diff)
    if differ and not replace:
        raise WorkerdError("nothing was written, for what lies there differs: --replace writes over it")
    for file in files:
        file.write()
        render.say(f"wrote {file.path}")
    for warning in chosen.warnings(configuration):
        render.warn(warning)
    render.say(f"next: {chosen.next_step}")
    return 0


def uninstall(target: Name) -> None:
    """Stop what was installed and remove its files, settings and user; data is left.

    Example: workerctl uninstall systemd
    """
    chosen = _target(target)
    _as_root(f"uninstall {target}")
    left = chosen.remove()
    render.say(f"{target}: removed" + (f"; data is left in {' and '.join(left)}" if left else ""))


def _target(name: str) -> Target:
    from workerctl.install.logrotate import Logrotate
    from workerctl.install.systemd import Systemd

    targets: dict[str, type[Target]] = {each.name: each for each in (Systemd, Logrotate)}
    if name not in targets:
        raise ConfigError(f"there is no target {name!r}, allowed are {', '.join(targets)}")
    return targets[name]()


def _as_root(what: str, hint: str = "") -> None:
    if os.geteuid() != 0:
        raise WorkerdError(
            f"`{what}` writes below /etc and makes a user: run it as root, `sudo workerctl {what}`{hint}"
        )


commands = (install, uninstall)
