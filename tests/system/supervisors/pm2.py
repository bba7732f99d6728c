"""A real pm2 with a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.shared import CACHE, kept

if TYPE_CHECKING:
    from pathlib import Path

INSTALL_LIMIT = 300  # seconds
MACHINE = dict(os.environ)  # before the tests' is cleaned: npm's settings, cache and certificates are the machine's


def install() -> Path:
    """Where the program of a pm2 is that this machine keeps. Skips the test where it cannot be had."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm here: apt install npm")
    version = subprocess.check_output(["node", "--version"], text=True).strip()
    return kept(CACHE / f"pm2-{version}", _install) / "node_modules" / ".bin"


def _install(prefix: Path) -> None:
    wanted = ["npm", "install", "--prefix", str(prefix), "--no-audit", "--no-fund", "--loglevel=error"]
    wanted += ["--prefer-offline", "--fetch-retries=0", "pm2"]
    try:
        subprocess.run(wanted, check=True, capture_output=True, text=True, timeout=INSTALL_LIMIT, env=MACHINE)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"pm2 cannot be installed: {error}: {error.stderr!r}")


class Pm2:
    """`pm2` with the environment of a test; it starts its own daemon."""

    def __init__(self, programs: Path, home: Path) -> None:
        self.environment = {"PM2_HOME": str(home), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            ["pm2", *words, "--no-color"],
            cwd="/",
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def list(self) -> list[dict[str, Any]]:
        """What it keeps running, as `pm2 jlist` has it."""
        lines = self("jlist").splitlines()
        kept: list[dict[str, Any]] = json.loads(lines[-1])
        return kept
