"""`python -m invoices`: the invoice assistant by one command."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support import hide

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.support import Ctl


def invoices(ctl: Ctl, *mails: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "invoices", *mails],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ctl.directory,
        env={**os.environ, **ctl.environment},
        check=False,
    )


def test_it_starts_the_daemon_and_reads_the_samples_once(ctl: Ctl) -> None:
    first, second = invoices(ctl), invoices(ctl)
    assert (first.returncode, first.stderr) == (0, "")
    assert "worker started (local" in first.stdout
    assert "invoices (5 mails, 4 new attachments)" in first.stdout
    assert "NB-2026-0117" in first.stdout
    assert second.returncode == 0
    assert "worker runs already (local" in second.stdout
    assert "invoices (5 mails, 0 new attachments)" in second.stdout


def test_a_mail_that_is_none_is_told_of(ctl: Ctl) -> None:
    (ctl.directory / "bad.eml").write_text("hello", encoding="utf-8")
    ended = invoices(ctl, "bad.eml")
    assert ended.returncode == 1
    assert ended.stderr == "invoices: job 1 failed: this is no e-mail: it has no header\n"
    missing = invoices(ctl, "missing.eml")
    assert missing.returncode == 2
    assert "there is no file missing.eml" in missing.stderr


def test_without_a_library_it_says_what_to_install(ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, tmp_path, "pypdf")
    ended = invoices(ctl)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "invoices: pypdf is not installed: pip install 'workerd[invoices]'\n"
