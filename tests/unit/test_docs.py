"""The documentation names everything that there is."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

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


def test_every_setting_and_alias_is_documented() -> None:
    keys = [key for name in Settings.model_fields for key in config.names(name)]
    assert keys
    assert [key for key in keys if f"`{key}`" not in REFERENCE] == []


def test_every_command_is_documented() -> None:
    commands = _commands(get_command(app))
    assert commands
    assert [command for command in commands if f"`workerctl {command}`" not in DOCS["commands.md"]] == []


def test_every_variable_of_compose_is_documented() -> None:
    assert COMPOSE
    assert [name for name in COMPOSE if f"`{name}`" not in DOCS["docker.md"]] == []


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


def test_every_module_of_fault_tests_is_in_the_table_of_faults() -> None:
    modules = [path.name for path in (ROOT / "tests" / "faults").glob("test_*.py")]
    assert modules
    assert [module for module in modules if f"`{module}`" not in DOCS["testing.md"]] == []


def _unaccounted(block: Block) -> str | None:
    """Why nothing vouches for this block, if nothing does."""
    if block.run:
        page = block.page.removeprefix("docs/")
        taken = page in (ROOT / block.run).read_text(encoding="utf-8")
        return None if taken else f"{block.run} does not take it from {page}"
    if not block.reason:
        return "its line above is neither `<!-- run: tests/… -->` nor `<!-- not run: why -->`"
    return None if len(block.reason.split()) > 1 else f"this is no reason: {block.reason}"


def test_every_block_is_run_by_a_test_or_says_why_not() -> None:
    found = [block for page in pages() for block in blocks(page)]
    assert found
    assert [f"{block.page}:{block.line}: {why}" for block in found if (why := _unaccounted(block))] == []


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


def _flags() -> set[str]:
    """What any command takes: the flag of each setting, and a file with them."""
    parser = argparse.ArgumentParser()
    config.add_flags(parser)
    return {"--config", "--runtime", *parser._option_string_actions}


def _unknown(line: str, command: Any, flags: set[str]) -> Iterator[str]:
    """The words of a line that name neither a command nor an option."""
    words = iter(re.sub(r"[…)('\"]|\$\w+", " ", line).split()[1:])
    for word in words:
        name, given, _ = word.partition("=")
        if name.startswith("-") and len(name) > 1:
            known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
            if name not in known | flags | {"--help", "--version"}:
                yield name
            if name in flags and not given:
                next(words, None)
        elif hasattr(command, "commands"):
            if not set(word.split("/")) <= command.commands.keys():
                yield word
                return
            command = command.commands[word.partition("/")[0]]


def test_every_command_that_is_shown_exists_with_its_options() -> None:
    shown, command, flags = sorted(set(_shown())), get_command(app), _flags()
    assert shown
    wrong = [f"{page}: {line}: there is no {word}" for page, line in shown for word in _unknown(line, command, flags)]
    assert wrong == []


def test_every_test_that_is_named_exists() -> None:
    named = {name for page in pages() for name in re.findall(r"\btests/[\w/.]*\w", page.read_text(encoding="utf-8"))}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
