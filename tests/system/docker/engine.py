"""The Docker engine that tests use: the one that is there, else the testbed's private one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.shared import CACHE, in_common, locked
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
TESTBED = Path(os.environ.get("TESTBED", ROOT.parent / "shared" / "testbed")) / "docker-engine.sh"
MONITORING_FILE = HERE / "monitoring.Dockerfile"
MARK = hashlib.sha256(MONITORING_FILE.read_bytes()).hexdigest()[:12]  # other contents, other images
SAVED = CACHE / f"monitoring-{MARK}.tar"
CONFIG = Path.home() / ".docker"  # plugins, credentials; tests have another home
GIVEN = {"DOCKER_CONFIG": str(CONFIG)} if CONFIG.is_dir() else {}
GIVEN |= {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
MONITORING = ("prometheus", "alertmanager", "exporter")
LIMIT = 600  # seconds; an image is built in 30


@dataclass(frozen=True)
class Engine:
    """`docker` with the environment that leads to one engine. `stand_ins`: no registry is reached, images are the testbed's."""

    environment: dict[str, str]
    stand_ins: bool

    def run(self, *words: str, **environment: str) -> str:
        """What the command prints. Fails with what it complains of."""
        done = self.done(*words, **environment)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr[-2000:]}"
        return done.stdout

    def done(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self.environment, **environment},
        )

    def has(self, image: str) -> bool:
        return self.done("image", "inspect", image).returncode == 0


@contextlib.contextmanager
def running() -> Iterator[Engine | str]:
    """An engine that answers, or why there is none."""
    there = None if not TESTBED.is_file() else _environment(_testbed("env"))
    if _answers(GIVEN) and there != GIVEN:
        yield Engine(GIVEN, stand_ins=_is_testbeds(GIVEN))
    elif there is None:
        yield f"no Docker engine answers, and there is no testbed at {TESTBED} to start one"
    elif os.geteuid() != 0:
        yield "no Docker engine answers, and the testbed's wants root"
    else:
        ours = Path(there["DOCKER_CONFIG"]).with_name("started-by-tests")  # goes with the engine
        with in_common("engine", lambda: _up(there, ours), lambda: _down(ours)):
            yield Engine(there, stand_ins=True)


def _up(environment: dict[str, str], ours: Path) -> None:
    is_there = _answers(environment)
    _testbed("up")
    if not is_there:
        ours.touch()
    _testbed("base")


def _down(ours: Path) -> None:
    """Remove the testbed's engine with all that it holds, unless it was there before."""
    if ours.exists():
        _testbed("down")


def make_monitoring(engine: Engine, base: str) -> dict[str, str]:
    """Stand-ins for the monitoring's images, as variables for compose; kept in the testbed's cache."""
    images = {name: f"testbed/{name}:{MARK}" for name in MONITORING}
    with locked(CACHE / "monitoring.lock"):
        missing = [image for image in images.values() if not engine.has(image)]
        if missing and SAVED.exists():
            engine.run("load", "--quiet", "--input", str(SAVED))
        elif missing:
            for name, image in images.items():
                engine.run(
                    "build",
                    "--quiet",
                    "--network",
                    "host",
                    "--build-arg",
                    f"BASE={base}",
                    "--target",
                    name,
                    "--tag",
                    image,
                    "--file",
                    str(MONITORING_FILE),
                    str(HERE),
                )
            engine.run("save", "--output", str(SAVED), *images.values())
    return {f"{name.upper()}_IMAGE": image for name, image in images.items()}


def _answers(environment: dict[str, str]) -> bool:
    if shutil.which("docker") is None:
        return False
    asked = (["docker", "version"], ["docker", "compose", "version"])
    return all(
        subprocess.run(words, env={**os.environ, **environment}, capture_output=True, check=False).returncode == 0
        for words in asked
    )


def _is_testbeds(environment: dict[str, str]) -> bool:
    return Engine(environment, stand_ins=False).has("testbed/bookworm-python")


def _testbed(verb: str) -> str:
    done = subprocess.run([TESTBED, verb], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, f"{TESTBED} {verb}: {done.stderr[-2000:]}"
    return done.stdout


def _environment(exports: str) -> dict[str, str]:
    return dict(re.findall(r"(DOCKER_\w+)=(\S+)", exports))
