"""The documentation names everything that there is."""

from __future__ import annotations

import re
from typing import Any

import pytest
from typer.main import get_command

from tests.support import ROOT
from workerctl.app import app
from workerd import config
from workerd.settings import Settings

COMPOSE = sorted({*re.findall(r"(?<!\$)\$\{([A-Z_]+)", (ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))})
DOCS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}


def _commands(group: Any, path: tuple[str, ...] = ()) -> list[str]:
    found = []
    for name, command in group.commands.items():
        nested = hasattr(command, "commands")
        found += _commands(command, (*path, name)) if nested else [" ".join((*path, name))]
    return found


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_and_alias_is_documented(name: str) -> None:
    assert all(f"`{key}`" in DOCS["settings.md"] for key in config.names(name))


@pytest.mark.parametrize("command", _commands(get_command(app)))
def test_every_command_is_documented(command: str) -> None:
    assert f"`workerctl {command}`" in DOCS["commands.md"]


@pytest.mark.parametrize("name", COMPOSE)
def test_every_variable_of_compose_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCS["docker.md"]


def test_the_example_of_settings_has_only_what_there_is() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    names = {line.lstrip("#").partition("=")[0] for line in lines if re.match(r"#?[A-Z_]+=", line)}
    known = {key for field in Settings.model_fields for key in config.names(field)} | {*COMPOSE, "COMPOSE_PROFILES"}
    assert names
    assert names <= known


def test_links_of_the_readme_lead_somewhere() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = [part.split(")")[0] for part in readme.split("](")[1:]]
    assert linked
    assert [name for name in linked if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("module", sorted(path.name for path in (ROOT / "tests" / "faults").glob("test_*.py")))
def test_every_module_of_fault_tests_is_in_the_table_of_faults(module: str) -> None:
    assert f"`{module}`" in DOCS["testing.md"]
