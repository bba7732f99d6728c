"""The manifests of docker/kubernetes, as they lie there."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml
from dotenv import dotenv_values

from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ROOT / "docker" / "kubernetes"
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
COMPONENTS = ("attachments", "keda", "monitoring")


@cache
def documents() -> list[dict[str, Any]]:
    """All objects, those of the components too."""
    folders = [FOLDER, *(FOLDER / "components" / name for name in COMPONENTS)]
    files = [folder / name for folder in folders for name in _kustomization(folder)["resources"]]
    return [each for file in files for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def secrets() -> list[dict[str, Any]]:
    """Those that a user fills in."""
    return list(yaml.safe_load_all((FOLDER / "secrets.example.yaml").read_text(encoding="utf-8")))


def find(kind: str, name: str = "worker") -> dict[str, Any]:
    return next(each for each in documents() if each["kind"] == kind and each["metadata"]["name"] == name)


def pods() -> dict[str, dict[str, Any]]:
    """What each pod is made from, by the name of its Deployment or Job."""
    return {
        each["metadata"]["name"]: each["spec"]["template"]
        for each in documents()
        if each["kind"] in ("Deployment", "Job")
    }


def container(name: str) -> dict[str, Any]:
    """The only container of a pod."""
    (only,) = pods()[name]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def settings() -> dict[str, str]:
    """What is in the ConfigMap."""
    return {key: value or "" for key, value in dotenv_values(FOLDER / "settings.env").items()}


def image_environment() -> dict[str, str]:
    """What the image sets."""
    (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)", DOCKERFILE, re.MULTILINE)
    return dict(re.findall(r"(\w+)=(\S+)", block))


def environment(name: str) -> dict[str, str]:
    """What a container sees, without its PATH: the image's, the ConfigMap's where it takes it, and its own."""
    found = container(name)
    taken = settings() if found.get("envFrom") == [{"configMapRef": {"name": "worker"}}] else {}
    seen = image_environment() | taken | {each["name"]: each["value"] for each in found.get("env", [])}
    return {key: value for key, value in seen.items() if key != "PATH"}


def mounts(name: str) -> dict[str, dict[str, Any]]:
    """What is mounted, by its path."""
    volumes = {each["name"]: each for each in pods()[name]["spec"]["volumes"]}
    return {each["mountPath"]: volumes[each["name"]] for each in container(name)["volumeMounts"]}


def _kustomization(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    return found
