"""The manifests as kustomize builds them, held against what clusters and operators take."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.examples import examples
from tests.manifests import FOLDER
from tests.support import ROOT

pytestmark = pytest.mark.system

TESTBED = Path(os.environ.get("TESTBED", ROOT.parent / "shared" / "testbed"))
CACHE = Path(os.environ.get("TESTBED_CACHE_DIR", "/tmp/testbed-cache"))
VERSIONS = ("1.28", "1.31", "1.34", "1.37")
TYPES = (
    "cloudcoil-models-keda",
    "cloudcoil-models-prometheus-operator",
)  # the resources of operators as Python has them
MODULES = {
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}
SHOWN = """
import importlib, json, sys
for each in json.load(sys.stdin):
    made = getattr(importlib.import_module(sys.argv[1]), each["kind"]).model_validate(each)
    print(json.dumps(made.model_dump(mode="json", by_alias=True, exclude_unset=True)))
"""


@pytest.fixture(scope="module")
def validator() -> Path:
    script = TESTBED / "kubernetes-validate.sh"
    if not script.exists():
        pytest.skip("the testbed is not here: set TESTBED")
    if not (shutil.which("kubectl") or shutil.which("kustomize")):
        pytest.skip("there is neither kubectl nor kustomize here")
    return script


@pytest.fixture(scope="module")
def types() -> Path:
    """A Python that has the resources of operators."""
    environment = CACHE / "operators"
    python = environment / "bin" / "python"
    if not (environment / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True, capture_output=True)
        done = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *TYPES], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"{' and '.join(TYPES)} cannot be installed: {done.stderr.strip()[-200:]}")
        (environment / "complete").touch()
    return python


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """The overlay of the documentation, with all components, beside a copy of the project's folder."""
    shutil.copytree(FOLDER, tmp_path / "docker" / "kubernetes")
    (written,) = examples("kubernetes.md", "yaml")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "kustomization.yaml").write_text(written)
    return tmp_path / "shop"


def build(folder: Path) -> list[dict[str, Any]]:
    command = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    done = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_every_version_of_kubernetes_takes_them_as_they_lie_and_with_all_components(
    validator: Path, everything: Path
) -> None:
    versions = [word for version in VERSIONS for word in ("-k", version)]
    secrets = FOLDER / "secrets.example.yaml"
    done = subprocess.run(
        [validator, *versions, FOLDER, everything, secrets], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    own = [each for folder in (FOLDER, everything) for each in build(folder) if each["apiVersion"] not in MODULES]
    assert done.stdout.count(" passed for resource ") == len(VERSIONS) * (len(own) + 3)


def test_an_unknown_field_is_refused(validator: Path, everything: Path) -> None:
    """What the test above relies on."""
    worker = everything.parent / "docker" / "kubernetes" / "worker.yaml"
    worker.write_text(worker.read_text().replace("terminationGracePeriodSeconds", "terminationGraceSeconds"))
    done = subprocess.run([validator, "-k", VERSIONS[0], everything], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "terminationGraceSeconds" in done.stdout


def test_settings_secrets_and_images_are_tied_together(validator: Path, everything: Path) -> None:
    made = build(everything)
    named = {(each["kind"], each["metadata"]["name"]) for each in made}
    pods = {each["metadata"]["name"]: each["spec"] for each in made if each["kind"] in ("Deployment", "Job")}
    for pod in pods.values():
        (container,) = pod["template"]["spec"]["containers"]
        assert container["image"] == "registry.example/shop/worker:1"
        for source in container.get("envFrom", []):
            assert ("ConfigMap", source["configMapRef"]["name"]) in named
    assert "replicas" not in pods["worker"], "the number is KEDA's"
    (settings,) = (each["data"] for each in made if each["kind"] == "ConfigMap")
    assert (settings["TASKS"], settings["WORKERS"], settings["DRAIN_TIMEOUT"]) == ("shop.tasks", "16", "30s")
    claims = [each.get("persistentVolumeClaim") for each in pods["worker"]["template"]["spec"]["volumes"]]
    assert {"claimName": "attachments"} in claims
    assert {each["metadata"]["namespace"] for each in made} == {"shop"}


def test_what_install_writes_is_taken_with_everything_that_was_given(validator: Path, tmp_path: Path) -> None:
    words = ["--to", str(tmp_path), "--image", "registry.example:5000/shop:2", "--namespace", "shop"]
    settings = ["--workers", "16", "--drain-timeout", "2m"]
    for given in ([], ["--replace", *settings]):
        command = [sys.executable, "-m", "workerctl", "install", "kubernetes", *words, *given]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        overlay = tmp_path / "kustomization.yaml"
        overlay.write_text(overlay.read_text().replace("#components:", "components:").replace("#  - base", "  - base"))
        done = subprocess.run([validator, "-k", VERSIONS[0], tmp_path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    made = {(each["kind"], each["metadata"]["name"].partition("-")[0]): each for each in build(tmp_path)}
    pod = made["Deployment", "worker"]["spec"]["template"]["spec"]
    assert (pod["containers"][0]["image"], pod["terminationGracePeriodSeconds"]) == (
        "registry.example:5000/shop:2",
        150,
    )
    assert made["ConfigMap", "worker"]["data"] == {
        "TASKS": "invoices",
        "WORKERS": "16",
        "DRAIN_TIMEOUT": "120",
        "LOG_FORMAT": "json",
    }
    assert made["ScaledObject", "worker"]["spec"]["triggers"][0]["metadata"]["targetQueryValue"] == "64"
    assert {each["metadata"]["namespace"] for each in made.values()} == {"shop"}


def test_operators_know_every_field_of_what_is_theirs(validator: Path, everything: Path, types: Path) -> None:
    made = [*build(everything), alerts()]
    for version, module in MODULES.items():
        theirs = [each for each in made if each["apiVersion"] == version]
        done = subprocess.run(
            [types, "-c", SHOWN, module], input=json.dumps(theirs), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert [json.loads(line) for line in done.stdout.splitlines()] == theirs
    assert {each["kind"] for each in made} >= {"ScaledObject", "TriggerAuthentication", "ServiceMonitor"}


def alerts() -> dict[str, Any]:
    """The rules as the documentation makes an object of them."""
    (written,) = (block for block in examples("kubernetes.md", "sh") if "PrometheusRule" in block)
    command = written.replace("kubectl -n shop apply -f -", "cat")
    made: dict[str, Any] = yaml.safe_load(subprocess.check_output(["sh", "-ec", command], cwd=ROOT, text=True))
    assert made["spec"] == yaml.safe_load((ROOT / "docker" / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
    return made
