"""What `workerctl install kubernetes` writes: the project's manifests as they lie, and a kustomization of the user's own over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests import manifests
from workerctl.install.kubernetes import Kubernetes
from workerd import config
from workerd.errors import WorkerdError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("directory")


def target(folder: Path, **flags: str) -> Kubernetes:
    return Kubernetes(config.load(flags, environ={}), folder)


def overlay(chosen: Kubernetes) -> dict[str, Any]:
    (text,) = (file.text for file in chosen.files() if file.path == chosen.folder / "kustomization.yaml")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def patched(chosen: Kubernetes) -> dict[str, Any]:
    """The values that are put in place, by the last word of their path."""
    changes = [change for patch in overlay(chosen)["patches"] for change in yaml.safe_load(patch["patch"])]
    return {change["path"].rpartition("/")[2]: change["value"] for change in changes}


def test_the_base_is_every_file_of_the_project_as_it_lies(tmp_path: Path) -> None:
    chosen = target(tmp_path)
    written = {file.path: file.text for file in chosen.files() if file.path.is_relative_to(tmp_path / "base")}
    lying = [path for path in manifests.FOLDER.rglob("*") if path.is_file()]
    assert written == {tmp_path / "base" / path.relative_to(manifests.FOLDER): path.read_text() for path in lying}


def test_settings_are_written_without_secrets_and_without_what_pods_have_of_their_own(tmp_path: Path) -> None:
    given = {"database_url": "postgresql://a:hunter22@db/b", "openai_api_key": "hunter33"}
    chosen = target(
        tmp_path, **given, queues="mail,ocr", workers="16", name="x", node_name="here", metrics_port="1", app_dir="/srv"
    )
    literals = dict(each.split("=", 1) for each in overlay(chosen)["configMapGenerator"][0]["literals"])
    assert literals == {"QUEUES": "mail,ocr", "WORKERS": "16"}
    assert "hunter" not in "".join(file.text for file in chosen.files())
    (warning,) = chosen.warnings()
    assert "DATABASE_URL, OPENAI_API_KEY: not written" in warning


def test_what_follows_from_settings_follows(tmp_path: Path) -> None:
    assert patched(target(tmp_path)) == {
        "terminationGracePeriodSeconds": manifests.pods()["worker"]["spec"]["terminationGracePeriodSeconds"],
        "failureThreshold": manifests.container("worker")["livenessProbe"]["failureThreshold"],
    }
    given = target(tmp_path, drain_timeout="5m", stall_limit="2m", workers="3")
    assert patched(given) == {"terminationGracePeriodSeconds": 330, "failureThreshold": 15, "targetQueryValue": "12"}


def test_namespace_and_image_are_left_as_they_are_unless_given(tmp_path: Path) -> None:
    chosen = target(tmp_path)
    assert "namespace" not in overlay(chosen)
    assert overlay(chosen)["images"] == [{"name": "worker", "newName": "worker"}]
    chosen.namespace = "shop"
    assert overlay(chosen)["namespace"] == "shop"


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("shop", {"newName": "shop"}),
        ("registry.example:5000/shop", {"newName": "registry.example:5000/shop"}),
        ("registry.example:5000/a/shop:1.2", {"newName": "registry.example:5000/a/shop", "newTag": "1.2"}),
        ("shop@sha256:abc", {"newName": "shop", "digest": "sha256:abc"}),
    ],
)
def test_an_image_is_given_as_it_is_pulled(tmp_path: Path, image: str, parts: dict[str, str]) -> None:
    chosen = target(tmp_path)
    chosen.image = image
    assert overlay(chosen)["images"] == [{"name": "worker", **parts}]


def test_what_runs_in_a_cluster_is_left_to_kubectl(tmp_path: Path) -> None:
    with pytest.raises(WorkerdError, match=f"kubectl delete -k {tmp_path}"):
        target(tmp_path).remove()
