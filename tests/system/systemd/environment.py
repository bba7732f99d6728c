"""An environment of the system's Python, which is there inside of machines too, with the project as a wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.shared import CACHE, MADE, kept
from tests.support import ROOT
from tests.system.wheels import CONSTRAINTS, mark, offline

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = "/usr/bin/python3"


def make_environment(where: Path) -> None:
    """What the project depends on is linked there from the cache, the project itself is installed."""
    dependencies = kept(CACHE / f"environment-{mark(PYTHON)}", _make_dependencies)
    others = shutil.ignore_patterns(MADE)
    shutil.copytree(dependencies, where, symlinks=True, copy_function=_link, dirs_exist_ok=True, ignore=others)
    where.chmod(0o755)
    _pip(where, "install", "--no-deps", str(ROOT))


def _make_dependencies(where: Path) -> None:
    made = subprocess.run([PYTHON, "-m", "venv", str(where)], check=False, capture_output=True)
    if made.returncode:
        pytest.skip(f"{PYTHON} makes no environments here: apt install python3-venv")
    _pip(where, "install", f"{ROOT}[embedded,invoices,manager]")
    _pip(where, "uninstall", "--yes", "workerd")


def _pip(where: Path, verb: str, *words: str) -> None:
    constraint = ("--constraint", str(CONSTRAINTS)) if verb == "install" else ()
    command = [where / "bin/python", "-m", "pip", "--disable-pip-version-check", verb, "--quiet", *constraint, *words]
    subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **offline(PYTHON)})


def _link(source: str, target: str) -> None:
    """A file of the cache, which nobody changes; a copy where the cache is on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
