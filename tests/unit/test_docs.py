"""The documentation names everything that there is."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from tests.examples import Block, blocks, pages
from tests.support import ROOT
from workerctl.app import app
from workerd import config, libraries
from workerd.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPOSE = sorted({*re.findall(r"(?<!\$)\$\{([A-Z_]+)", (ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))})
DOCS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}


def _commands(group: Any, path: tuple[str, ...] = ()) -> list[str]:
    found = []
    for name, command in group.commands.items():
        nested = hasattr(command, "commands")
        found += _commands(command, (*path, name)) if nested else [" ".join((*path, name))]
    return found


REFERENCE = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_and_alias_is_documented(name: str) -> None:
    assert all(f"`{key}`" in REFERENCE for key in config.names(name))


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
    assert {name for name in names if not name.startswith(libraries.PREFIXES)} <= known


def test_links_of_the_readme_lead_somewhere() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = [part.split(")")[0] for part in readme.split("](")[1:]]
    assert linked
    assert [name for name in linked if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("module", sorted(path.name for path in (ROOT / "tests" / "faults").glob("test_*.py")))
def test_every_module_of_fault_tests_is_in_the_table_of_faults(module: str) -> None:
    assert f"`{module}`" in DOCS["testing.md"]


BLOCKS = [block for page in pages() for block in blocks(page)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_every_block_is_run_by_a_test_or_says_why_not(block: Block) -> None:
    assert block.run or block.reason, "its line above is neither `<!-- run: tests/… -->` nor `<!-- not run: why -->`"
    if block.run:
        page = block.page.removeprefix("docs/")
        assert page in (ROOT / block.run).read_text(encoding="utf-8"), f"{block.run} does not take it from {page}"
    else:
        assert len(str(block.reason).split()) > 1


def _shown() -> Iterator[tuple[str, str]]:
    """Every line of workerctl in a block of a shell or between back-ticks, and its page."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        lines = [
            line for block in blocks(page) if block.language in ("sh", "console") for line in block.text.splitlines()
        ]
        prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
        for line in (*lines, *re.findall(r"`([^`\n]+)`", prose)):
            for command in re.findall(r"\bworkerctl\b[^|;&]*", line.partition("  #")[0]):
                yield str(page.relative_to(ROOT)), command.strip()


SHOWN = sorted(set(_shown()))


def _flags() -> set[str]:
    """What any command takes: the flag of each setting, and a file with them."""
    parser = argparse.ArgumentParser()
    config.add_flags(parser)
    return {"--config", "--runtime", *parser._option_string_actions}


ALL_COMMANDS = get_command(app)
FLAGS = _flags()


@pytest.mark.parametrize(("page", "line"), SHOWN)
def test_every_command_that_is_shown_exists_with_its_options(page: str, line: str) -> None:
    flags = FLAGS
    command: Any = ALL_COMMANDS
    words = iter(re.sub(r"[…)('\"]|\$\w+", " ", line).split()[1:])
    for word in words:
        name, given, _ = word.partition("=")
        if name.startswith("-") and len(name) > 1:
            known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
            assert name in known | flags | {"--help", "--version"}, f"{page}: {line}: there is no {name}"
            if name in flags and not given:
                next(words, None)
        elif hasattr(command, "commands"):
            assert set(word.split("/")) <= command.commands.keys(), f"{page}: {line}: there is no {word}"
            command = command.commands[word.partition("/")[0]]


NAMED = sorted(
    {name for page in pages() for name in re.findall(r"\btests/[\w/.]*\w", page.read_text(encoding="utf-8"))}
)


@pytest.mark.parametrize("name", NAMED)
def test_every_test_that_is_named_exists(name: str) -> None:
    assert (ROOT / name).exists()
