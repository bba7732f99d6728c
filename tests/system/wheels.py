"""An index of packages in a folder: what the project needs, as the real index has it, taken once."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.shared import CACHE, kept
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

EXTRAS = ("embedded", "invoices", "manager", "otel", "sentry")
BUILD = ("setuptools", "wheel")  # what makes a wheel of sdnotify, which is there as source alone
CONSTRAINTS = ROOT / "constraints.txt"
TAGS = "import sys, sysconfig; print(sys.implementation.cache_tag, sysconfig.get_platform())"


def wheels(python: str | Path) -> Path:
    """The folder for this Python: wheels, but of sdnotify its source. Skips the test where no index is reached."""

    def take(folder: Path) -> None:
        done = subprocess.run(
            [
                python,
                "-m",
                "pip",
                "--disable-pip-version-check",
                "--retries",
                "1",
                "download",
                "--quiet",
                "--dest",
                folder,
                "--only-binary",
                ":all:",
                "--no-binary",
                "sdnotify",
                "--constraint",
                CONSTRAINTS,
                *_requirements(),
            ],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"packages cannot be had: {done.stderr.strip().splitlines()[-1:]}")

    return kept(CACHE / f"wheels-{mark(python)}", take)


def offline(python: str | Path) -> dict[str, str]:
    """The environment in which pip asks that folder and nothing else."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels(python))}


def mark(python: str | Path) -> str:
    """Another one when another version of Python, other requirements or other versions are meant."""
    tags = subprocess.check_output([python, "-c", TAGS], text=True)
    told = json.dumps([tags, _requirements(), CONSTRAINTS.read_text(encoding="utf-8")])
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def _requirements() -> list[str]:
    """Of the project, and of the tools that make its wheel."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = told["project"]
    extras = [each for extra in EXTRAS for each in project["optional-dependencies"][extra]]
    return [*project["dependencies"], *extras, *told["build-system"]["requires"], *BUILD]
