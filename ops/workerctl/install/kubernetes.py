"""Manifests for a cluster: the project's as they lie, and over them a kustomization with what is this installation's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from workerctl.install import env_file, packed
from workerctl.install.target import STOP_MARGIN, File, Target
from workerd.errors import WorkerdError
from workerd.redact import is_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = "docker/kubernetes"
IMAGE = "worker"  # as it is called there
PERIOD = 10  # seconds between two questions whether it lives
LATER = 3  # of them, by which that probe comes later than STALL_LIMIT
FOR_EACH_WORKER = 4  # jobs: the one that it runs, and those in line

OVERLAY = """# What is yours: the namespace, the image, settings. `base` is the project's; docs/kubernetes.md explains both.
#   kubectl apply -k .
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
{namespace}resources: [base]
#components:
#  - base/components/keda          # as many workers as there are jobs for
#  - base/components/monitoring    # Prometheus' operator finds them
#  - base/components/attachments   # a volume that they share
images:
  - name: worker
{image}
configMapGenerator:
  - name: worker
    behavior: merge
    literals:{settings}
patches: # what goes with DRAIN_TIMEOUT, STALL_LIMIT and WORKERS
{patches}"""
PATCH = """  - target: {{kind: {kind}, name: worker}}
    patch: |
      - {{op: replace, path: {path}, value: {value}}}
"""
POD = "/spec/template/spec"


class Kubernetes(Target):
    name = "kubernetes"
    is_system = False
    image = IMAGE
    namespace: str | None = None  # None: that of kubectl's context

    @property
    def folder(self) -> Path:
        return self.to or Path.cwd() / "kubernetes"

    @property
    def next_step(self) -> str:
        within = f" --namespace {self.namespace}" if self.namespace else ""
        return f"the secrets (docs/kubernetes.md), then kubectl apply -k {self.folder} && kubectl{within} rollout status deployment/worker"

    def files(self) -> list[File]:
        base = [File(self.folder / "base" / name, packed.text(f"{FILES}/{name}")) for name in packed.names(FILES)]
        return [*base, File(self.folder / "kustomization.yaml", self._overlay())]

    def warnings(self) -> list[str]:
        given = [key for key in env_file.entries(self.configuration) if is_secret(key.lower())]
        return [f"{', '.join(given)}: not written, for a secret belongs into the Secret `worker`"] if given else []

    def remove(self) -> list[str]:
        raise WorkerdError(f"what runs is kubectl's: `kubectl delete -k {self.folder}`, then remove that folder")

    def _overlay(self) -> str:
        return OVERLAY.format(
            namespace=f"namespace: {json.dumps(self.namespace)}\n" if self.namespace else "",
            image="\n".join(f"    {key}: {json.dumps(value)}" for key, value in _parts(self.image).items()),
            settings="".join(f"\n      - {json.dumps(each)}" for each in self._literals()) or " []",
            patches="".join(
                PATCH.format(kind=kind, path=path, value=json.dumps(value)) for kind, path, value in self._patches()
            ),
        )

    def _literals(self) -> list[str]:
        given = env_file.entries(self.configuration)
        return [
            f"{key}={value}"
            for key, value in given.items()
            if key not in env_file.OWN_OF_CONTAINERS and not is_secret(key.lower())
        ]

    def _patches(self) -> Iterator[tuple[str, str, int | str]]:
        """Kind, path and value of what follows from the settings."""
        settings = self.settings
        yield "Deployment", f"{POD}/terminationGracePeriodSeconds", math.ceil(settings.drain_timeout) + STOP_MARGIN
        probe = f"{POD}/containers/0/livenessProbe/failureThreshold"
        yield "Deployment", probe, math.ceil(settings.stall_limit / PERIOD) + LATER
        if self.configuration.sources["workers"] != "default":
            yield "ScaledObject", "/spec/triggers/0/metadata/targetQueryValue", str(FOR_EACH_WORKER * settings.workers)


def _parts(image: str) -> dict[str, str]:
    """A reference as kustomize wants it."""
    name, at, digest = image.partition("@")
    if at:
        return {"newName": name, "digest": digest}
    folder, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")  # the colon before is that of a port
    return {"newName": f"{folder}{slash}{last}"} | ({"newTag": tag} if tag else {})
