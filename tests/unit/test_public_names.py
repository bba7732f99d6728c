"""What `workerd` offers, and what offering it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import workerd


def test_all_names_are_listed_in_order() -> None:
    tree = ast.parse(Path(workerd.__file__).read_text())
    promised = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("workerd.")
        for alias in node.names
    }
    assert workerd.__all__ == sorted(promised | {"__version__"})


@pytest.mark.parametrize("name", workerd.__all__)
def test_each_name_is_there(name: str) -> None:
    assert getattr(workerd, name) == getattr(workerd, name)
    assert name == "__version__" or getattr(workerd, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'workerd' has no attribute 'nonsense'"):
        _ = workerd.nonsense


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import workerd", {"asyncpg", "pydantic", "uvloop", "orjson", "typer"}),
        ("from workerd import task, Retry, Job", {"asyncpg", "pydantic", "uvloop"}),
    ],
)
def test_importing_loads_no_more_than_is_used(statement: str, absent: set[str]) -> None:
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert not absent & set(done.stdout.split())


def test_a_star_import_brings_all_names() -> None:
    code = "from workerd import *\nimport workerd\nassert set(workerd.__all__) <= set(globals()), globals()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
