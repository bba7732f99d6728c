"""Type checkers find wrong arguments of `enqueue`.

The run of mypy with the plugin expects all that the others do, and more: it is their short form.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CALLS = Path(__file__).with_name("calls.py.txt")  # no Python file here: it would not pass the project's own check


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return Path(shutil.copyfile(CALLS, tmp_path / "calls.py"))


def marked(*marks: str) -> set[int]:
    """The numbers of the lines that end with one of these."""
    lines = enumerate(CALLS.read_text().splitlines(), 1)
    return {number for number, line in lines if line.endswith(tuple(f"  # {mark}" for mark in marks))}


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


def found_by_mypy(calls: Path, settings: str) -> set[int]:
    folder = calls.parent
    (folder / "mypy.ini").write_text(f"[mypy]\nstrict = true\ncache_dir = {folder / 'cache'}\n{settings}")
    said = run("mypy", str(calls), cwd=folder).stdout
    assert "INTERNAL ERROR" not in said
    return {int(line) for line in re.findall(r"calls\.py:(\d+): error", said)}


@pytest.mark.long
def test_mypy_finds_wrong_arguments_in_their_places(calls: Path) -> None:
    assert found_by_mypy(calls, "") == marked("wrong")


def test_mypy_with_the_plugin_finds_all_wrong_arguments_and_options(calls: Path) -> None:
    assert found_by_mypy(calls, "plugins = workerd.mypy") == marked("wrong", "wrong by name")


@pytest.mark.long
def test_pyright_finds_wrong_arguments_in_their_places(calls: Path) -> None:
    done = run("pyright", "--outputjson", "--pythonpath", sys.executable, str(calls), cwd=calls.parent)
    if not done.stdout.lstrip().startswith("{"):
        pytest.skip(f"pyright cannot be had here: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    said = json.loads(done.stdout)["generalDiagnostics"]
    assert {found["range"]["start"]["line"] + 1 for found in said if found["severity"] == "error"} == marked("wrong")
