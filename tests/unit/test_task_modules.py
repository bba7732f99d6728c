"""Importing the modules that declare tasks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from workerd import TaskError
from workerd.tasks import load_modules

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_registry: None) -> Iterator[Path]:
    """A directory for modules, which are forgotten after the test."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(f"{tmp_path}/"):
            del sys.modules[name]


def test_the_tasks_of_all_modules_are_registered(app: Path) -> None:
    (app / "shop").mkdir()
    (app / "shop" / "__init__.py").touch()
    (app / "shop" / "mails.py").write_text("from workerd import task\n@task\ndef send(): ...\n")
    (app / "reports.py").write_text("from workerd import task\n@task\ndef report(): ...\n")
    assert sorted(load_modules(("shop.mails", "reports"), app)) == ["report", "send"]
    assert sys.path[0] == str(app)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("absent", None, "no module absent on the import path (APP_DIR is "),
        ("sys.absent", None, "no module sys.absent on the import path (APP_DIR is "),
        ("needy", "import absent_library", "needy needs the module absent_library, which is not installed"),
        ("broken", "def (", "importing broken failed: SyntaxError: invalid syntax"),
        ("raising", "raise RuntimeError('no licence')", "importing raising failed: RuntimeError: no licence"),
        ("talkative", "raise RuntimeError('one\\ntwo\\nthree')", "importing talkative failed: RuntimeError: one"),
        ("silent", "raise RuntimeError", "importing silent failed: RuntimeError"),
        ("leaving", "raise SystemExit(3)", "importing leaving failed: SystemExit: 3"),
        ("careless", "from workerd import task\n@task\ndef f(*n): ...", "task f: *n cannot be carried"),
        ("empty", "x = 1", "empty declares no task: decorate a function with @task"),
        (".relative", None, "importing .relative failed: TypeError: the 'package' argument is required"),
    ],
)
def test_a_module_that_cannot_be_used_is_told_in_one_line(app: Path, name: str, text: str | None, says: str) -> None:
    if text is not None:
        (app / f"{name}.py").write_text(text)
    with pytest.raises(TaskError) as raised:
        load_modules((name,), app)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
