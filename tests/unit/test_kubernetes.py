"""The manifests agree with the program, the image and one another."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest
from typer.main import get_command

from tests import manifests
from workerctl.app import app
from workerctl.manager.serve import DRAIN
from workerd import config
from workerd.daemon.daemon import LEASE_LIMIT
from workerd.daemon.drain import CANCEL_LIMIT, FLUSH_LIMIT
from workerd.daemon.lifecycle import SHUTDOWN_LIMIT
from workerd.redact import is_secret
from workerd.settings import Settings

KNOWN = {key: name for name in Settings.model_fields for key in config.names(name)}
PODS = ("manager", "migration", "worker")
SERVING = ("manager", "worker")


def loaded(name: str) -> Settings:
    given = {key: value for key, value in manifests.environment(name).items() if key in KNOWN}
    return config.load(given, environ={}).settings


def test_the_pods_are_those_that_are_tested() -> None:
    assert sorted(manifests.pods()) == sorted(PODS)


def test_the_settings_are_settings_and_no_secrets() -> None:
    given = manifests.settings()
    assert given
    assert [key for key in given if key not in KNOWN or is_secret(KNOWN[key])] == []
    config.load(given, environ={})


@pytest.mark.parametrize("name", PODS)
def test_every_variable_is_read_by_somebody(name: str) -> None:
    manager = get_command(app).commands["manager"]  # type: ignore[attr-defined]
    of_manager = {option.envvar for option in manager.params if option.envvar}
    read = {*KNOWN, *of_manager, "CREDENTIALS_DIRECTORY", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    assert {*manifests.environment(name)} <= read


@pytest.mark.parametrize("name", PODS)
def test_a_container_may_do_nothing_that_it_does_not_need(name: str) -> None:
    pod = manifests.pods()[name]["spec"]
    uid, gid = (int(number) for number in re.findall(r"^USER (\d+):(\d+)$", manifests.DOCKERFILE, re.MULTILINE)[0])
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": uid,
        "runAsGroup": gid,
        "fsGroup": gid,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert manifests.container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["serviceAccountName"] == manifests.find("ServiceAccount")["metadata"]["name"]
    assert (
        pod["automountServiceAccountToken"] is manifests.find("ServiceAccount")["automountServiceAccountToken"] is False
    )


@pytest.mark.parametrize("name", PODS)
def test_no_variable_of_a_service_passes_for_a_setting(name: str) -> None:
    assert manifests.pods()[name]["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("name", PODS)
def test_what_is_written_and_where_secrets_are_read_is_mounted(name: str) -> None:
    image = manifests.image_environment()
    mounted = manifests.mounts(name)
    assert "secret" in mounted[image["CREDENTIALS_DIRECTORY"]]
    written = ["/tmp"] if name == "migration" else ["/tmp", image["STATE_DIR"], image["RUNTIME_DIR"]]
    assert all("emptyDir" in mounted[path] for path in written)


def test_the_grace_period_is_longer_than_a_drain_with_all_that_follows_it() -> None:
    needed = loaded("worker").drain_timeout + CANCEL_LIMIT + FLUSH_LIMIT + LEASE_LIMIT + SHUTDOWN_LIMIT
    assert manifests.pods()["worker"]["spec"]["terminationGracePeriodSeconds"] >= needed


def test_the_manager_has_time_for_requests_under_way() -> None:
    before = int(manifests.container("manager")["lifecycle"]["preStop"]["exec"]["command"][1])
    assert manifests.pods()["manager"]["spec"]["terminationGracePeriodSeconds"] > before + DRAIN


def test_a_loop_that_stands_still_ends_the_daemon_before_the_liveness_probe_does() -> None:
    probe = manifests.container("worker")["livenessProbe"]
    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) > loaded("worker").stall_limit


@pytest.mark.parametrize("name", SERVING)
def test_liveness_asks_for_loops_and_readiness_for_the_database(name: str) -> None:
    found = manifests.container(name)
    paths = {probe: found[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    (port,) = found["ports"]
    assert {found[probe]["httpGet"]["port"] for probe in paths} == {port["name"]}


def test_ports_are_those_of_the_settings() -> None:
    worker = loaded("worker")
    assert worker.enable_metrics
    assert ipaddress.ip_address(worker.metrics_host).is_unspecified, "others in the cluster ask"
    assert manifests.container("worker")["ports"] == [{"name": "metrics", "containerPort": worker.metrics_port}]
    port = int(manifests.environment("manager")["MANAGER_PORT"])
    assert manifests.container("manager")["ports"] == [{"name": "http", "containerPort": port}]


@pytest.mark.parametrize("name", SERVING)
def test_a_service_and_a_policy_find_their_pods_and_ports(name: str) -> None:
    labels = manifests.pods()[name]["metadata"]["labels"]
    (port,) = manifests.container(name)["ports"]
    service = manifests.find("Service", name)["spec"]
    assert service["selector"] == manifests.find("Deployment", name)["spec"]["selector"]["matchLabels"] == labels
    expected = {"name": port["name"], "port": port["containerPort"], "targetPort": port["name"]}
    assert service["ports"] == [expected]
    policy = manifests.find("NetworkPolicy", "worker-metrics" if name == "worker" else name)["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert [each["ports"] for each in policy["ingress"]] == [[{"protocol": "TCP", "port": port["name"]}]]


@pytest.mark.parametrize("name", PODS)
def test_no_pod_is_without_a_network_policy(name: str) -> None:
    policy = manifests.find("NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= manifests.pods()[name]["metadata"]["labels"].items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]


def test_a_rolling_update_and_an_eviction_leave_workers_that_claim() -> None:
    deployment, budget = manifests.find("Deployment")["spec"], manifests.find("PodDisruptionBudget")["spec"]
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert budget["selector"] == deployment["selector"]
    assert 0 < budget["maxUnavailable"] < deployment["replicas"]
    for constraint in manifests.pods()["worker"]["spec"]["topologySpreadConstraints"]:
        assert constraint["labelSelector"] == deployment["selector"]


def test_keda_scales_the_workers_by_an_address_of_the_secret_for_reading() -> None:
    scaled = manifests.find("ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == manifests.find("Deployment")["metadata"]["name"]
    (trigger,) = scaled["triggers"]
    authentication = manifests.find("TriggerAuthentication", trigger["authenticationRef"]["name"])
    parts: list[dict[str, Any]] = authentication["spec"]["secretTargetRef"]
    assert {each["name"] for each in parts} == {"worker-read"}
    assert {each["parameter"] for each in parts} == {"host", "port", "dbName", "userName", "password", "sslmode"}
    assert int(trigger["metadata"]["targetQueryValue"]) == 4 * loaded("worker").workers


def test_the_secrets_to_be_filled_in_have_what_pods_and_keda_wait_for() -> None:
    shown = {each["metadata"]["name"]: set(each["stringData"]) for each in manifests.secrets()}
    for pod in manifests.pods().values():
        (name,) = (each["secret"]["secretName"] for each in pod["spec"]["volumes"] if "secret" in each)
        assert shown[name] == {"database_url"}
    reading = manifests.find("TriggerAuthentication", "worker-read")["spec"]["secretTargetRef"]
    assert {(each["name"], each["key"]) for each in reading} == {("worker-read", key) for key in shown["worker-read"]}
    address = next(each["stringData"]["database_url"] for each in manifests.secrets())
    assert config.load({"DATABASE_URL": address}, environ={}).settings.database_url == address


def test_prometheus_finds_the_service_of_the_workers() -> None:
    monitor, service = manifests.find("ServiceMonitor")["spec"], manifests.find("Service")
    others = [each for each in manifests.documents() if each["kind"] == "Service" and each is not service]
    wanted = monitor["selector"]["matchLabels"].items()
    assert wanted <= service["metadata"]["labels"].items()
    assert not any(wanted <= other["metadata"]["labels"].items() for other in others)
    assert [each["port"] for each in monitor["endpoints"]] == [port["name"] for port in service["spec"]["ports"]]
    assert service["metadata"]["name"] == "worker"  # the name of the job in the alerts
