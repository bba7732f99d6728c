"""The Docker engine that tests use: the one that is there, else the testbed's private one."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

HERE = Path(__file__).parent
TESTBED = Path(os.environ.get("TESTBED", ROOT.parent / "shared" / "testbed")) / "docker-engine.sh"
MONITORING_FILE = HERE / "monitoring.Dockerfile"
MARK = hashlib.sha256(MONITORING_FILE.read_bytes()).hexdigest()[:12]  # other contents, other images
CACHE = Path(os.environ.get("TESTBED_CACHE_DIR", "/tmp/testbed-cache")) / f"monitoring-{MARK}.tar"
CONFIG = Path.home() / ".docker"  # plugins, credentials; tests have another home
GIVEN = {"DOCKER_CONFIG": str(CONFIG)} if CONFIG.is_dir() else {}
GIVEN |= {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
MONITORING = ("prometheus", "alertmanager", "exporter")
LIMIT = 300  # seconds; an image is built in 30


@dataclass(frozen=True)
class Engine:
    """`docker` with the environment that leads to one engine. `stand_ins`: no registry is reached, images are the testbed's."""

    environment: dict[str, str]
    stand_ins: bool
    ours: bool  # we started it

    def run(self, *words: str, **environment: str) -> str:
        """What the command prints. Fails with what it complains of."""
        done = self.done(*words, **environment)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr[-2000:]}"
        return done.stdout

    def done(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", *words], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False, stdin=subprocess.DEVNULL,
            env={**os.environ, **self.environment, **environment},
        )  # fmt: skip

    def has(self, image: str) -> bool:
        return self.done("image", "inspect", image).returncode == 0


def find() -> Engine | str:
    """An engine that answers, or why there is none."""
    if _answers(GIVEN):
        return Engine(GIVEN, stand_ins=_is_testbeds(GIVEN), ours=False)
    if not TESTBED.is_file():
        return f"no Docker engine answers, and there is no testbed at {TESTBED} to start one"
    if os.geteuid() != 0:
        return "no Docker engine answers, and the testbed's wants root"
    there = _environment(_testbed("env"))
    ours = not _answers(there)
    environment = _environment(_testbed("up"))
    _testbed("base")
    return Engine(environment, stand_ins=True, ours=ours)


def down() -> None:
    """Remove the testbed's engine with all that it holds."""
    _testbed("down")


def make_monitoring(engine: Engine, base: str) -> dict[str, str]:
    """Stand-ins for the monitoring's images, as variables for compose; kept in the testbed's cache."""
    images = {name: f"testbed/{name}:{MARK}" for name in MONITORING}
    missing = [image for image in images.values() if not engine.has(image)]
    if missing and CACHE.exists():
        engine.run("load", "--quiet", "--input", str(CACHE))
    elif missing:
        for name, image in images.items():
            engine.run(
                "build", "--quiet", "--network", "host", "--build-arg", f"BASE={base}", "--target", name, "--tag", image,
                "--file", str(MONITORING_FILE), str(HERE),
            )  # fmt: skip
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        engine.run("save", "--output", str(CACHE), *images.values())
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
    return Engine(environment, stand_ins=False, ours=False).has("testbed/bookworm-python")


def _testbed(verb: str) -> str:
    done = subprocess.run([TESTBED, verb], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, f"{TESTBED} {verb}: {done.stderr[-2000:]}"
    return done.stdout


def _environment(exports: str) -> dict[str, str]:
    return dict(re.findall(r"(DOCKER_\w+)=(\S+)", exports))
