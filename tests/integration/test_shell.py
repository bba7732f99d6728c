"""What the shell of the documentation calls `workerctl` is, to the shell, the command itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.shell import Shell

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, {"RUNTIME_DIR": str(tmp_path), "LOG_DIR": str(tmp_path), "STATE_DIR": str(tmp_path)})


def test_words_streams_directory_settings_and_exit_code_are_the_commands_own(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WORKERS=3\n")
    assert shell("workerctl --version | cat").startswith("workerctl ")
    assert "WORKERS in .env" in shell("workerctl config")
    assert '"value":"7"' in shell("WORKERS=7 workerctl config --json").replace(" ", "")
    assert shell("workerctl status || echo $?").endswith("3\n")
    assert "did you mean" in shell("workerctl statsu 2>&1 || true").lower()
    with pytest.raises(AssertionError, match="is stopped"):
        shell("workerctl status")


def test_a_signal_reaches_the_command_and_its_end_the_shell(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "worker.log").write_text("written before\n")
    follow = "workerctl logs -f > out & until grep -q before out; do :; done; kill -{signal} %1; wait %1 || echo $?"
    assert shell(follow.format(signal="TERM")) == "143\n"
    shell.endless("workerctl logs -f", "written before")
