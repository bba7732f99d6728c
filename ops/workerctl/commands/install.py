"""Files for this installation: install, uninstall."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workerctl import context, render
from workerd.errors import ConfigError, WorkerdError

if TYPE_CHECKING:
    from workerctl.install.target import Target

Name = Annotated[
    str, typer.Argument(metavar="TARGET", help="systemd, logrotate, supervisor, pm2, docker or kubernetes.")
]
To = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the files, instead of /etc/workerd or ~/.config/workerd, ./docker or ./kubernetes; not for systemd."
    ),
]


def install(
    target: Name,
    only_print: Annotated[bool, typer.Option("--print", help="Print the files, write nothing.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Write over files that differ.")] = False,
    to: To = None,
    image: Annotated[
        str | None, typer.Option(help="For docker and kubernetes: the image with its tag, registry/name:tag.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="For kubernetes: the namespace.")] = None,
) -> int:
    """Write the files that put the daemon, with the settings of now, into the hands of a service manager. Starts and enables nothing.

    Files that lie there already and differ are left as they are, and the difference is shown, unless --replace is given.

    Example: workerctl install systemd --tasks shop.tasks --workers 8
    """
    chosen = _target(target, to)
    if image or namespace:
        _place(chosen, image, namespace)
    files = chosen.files()
    if only_print:
        for file in files:
            render.say(f"# {file.path}\n{file.shown(file.text)}")
        return 0
    _as_root(chosen, "install", " (--print shows the files)")
    differ = [diff for file in files if (diff := file.diff())]
    for diff in differ:
        render.say(diff)
    if differ and not replace:
        raise WorkerdError("nothing was written, for what lies there differs: --replace writes over it")
    for file in files:
        file.write()
        render.say(f"wrote {file.path}")
    for warning in chosen.warnings():
        render.warn(warning)
    render.say(f"next: {chosen.next_step}")
    return 0


def uninstall(target: Name, to: To = None) -> None:
    """Stop what was installed and remove its files, settings and user; data is left.

    Example: workerctl uninstall systemd
    """
    chosen = _target(target, to)
    _as_root(chosen, "uninstall")
    left = chosen.remove()
    render.say(f"{target}: removed" + (f"; data is left in {' and '.join(left)}" if left else ""))


def _target(name: str, to: Path | None) -> Target:
    from workerctl.install.docker import Docker
    from workerctl.install.kubernetes import Kubernetes
    from workerctl.install.logrotate import Logrotate
    from workerctl.install.pm2 import Pm2
    from workerctl.install.supervisor import Supervisor
    from workerctl.install.systemd import Systemd

    targets: dict[str, type[Target]] = {
        each.name: each for each in (Systemd, Logrotate, Supervisor, Pm2, Docker, Kubernetes)
    }
    if name not in targets:
        raise ConfigError(f"there is no target {name!r}, allowed are {', '.join(targets)}")
    if to is not None and targets[name].is_system:
        raise ConfigError(f"the files for {name} have their places: --to is for others")
    return targets[name](context.configuration(), to)


def _place(chosen: Target, image: str | None, namespace: str | None) -> None:
    from workerctl.install.docker import Docker
    from workerctl.install.kubernetes import IMAGE, Kubernetes

    match chosen:
        case Kubernetes():
            chosen.image, chosen.namespace = image or IMAGE, namespace
        case Docker() if namespace is None:
            chosen.image = image
        case _:
            raise ConfigError("--image is for docker and kubernetes, --namespace for kubernetes")


def _as_root(chosen: Target, verb: str, hint: str = "") -> None:
    if chosen.is_system and os.geteuid() != 0:
        what = f"{verb} {chosen.name}"
        raise WorkerdError(
            f"`{what}` writes below /etc and makes a user: run it as root, `sudo workerctl {what}`{hint}"
        )
