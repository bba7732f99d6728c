"""What docker/ holds for the monitoring, for the tests that look at it: rules, their tests, dashboards."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMETHEUS = ROOT / "docker/prometheus"
ALERTMANAGER = ROOT / "docker/alertmanager/alertmanager.yml"
DASHBOARDS = sorted((ROOT / "docker/grafana/dashboards").glob("*.json"))
RUNBOOKS = sorted((ROOT / "docs/runbooks").glob("*.md"))


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def tests_of_rules() -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "tests.yml").read_text(encoding="utf-8"))["tests"]
    return tests


def dashboards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS]


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Each expression of each dashboard, with where it stands."""
    for dashboard in dashboards():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield f"{dashboard['title']}: {panel['title']} {target['refId']}", target["expr"]
        for annotation in dashboard["annotations"]["list"]:
            yield f"{dashboard['title']}: {annotation['name']}", annotation["expr"]


def names(expression: str) -> set[str]:
    """The metrics of the daemon that an expression or the query of a variable asks for."""
    return set(re.findall(r"\b(?:workerd|process)_\w+", expression))
