"""Alerts, their runbooks and their tests, and the dashboards: none without the other, and nothing that the daemon does not know."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from typer.main import get_command

from tests import watched
from tests.support import ROOT
from workerctl.app import app

ALERTS = watched.alerts()
HEADINGS = ["What it means", "Look at first", "Causes, and what to do", "When it is over"]
COMMANDS: Any = get_command(app)
PANELS = [(board["uid"], panel) for board in watched.dashboards() for panel in watched.panels(board)]


def _told() -> dict[str, set[str]]:
    """The labels of each metric, from the page that is made of what daemon and manager answer."""
    text = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    found = {}
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", text, re.MULTILINE):
        for each in [f"{name}_{part}" for part in ("bucket", "sum", "count")] if kind == "histogram" else [name]:
            found[each] = {*re.findall(r"`(\w+)`", labels)} | ({"le"} if each.endswith("_bucket") else set())
    return found


def _runbook(alert: dict[str, Any]) -> str:
    return "docs/runbooks/" + re.sub(r"(?<!^)(?=[A-Z])", "-", alert["alert"]).lower() + ".md"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_an_alert_says_what_happened_how_urgent_it_is_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == _runbook(alert)
    assert (ROOT / _runbook(alert)).is_file()
    page = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
    assert f"| [{alert['alert']}]({_runbook(alert).removeprefix('docs/')}) |" in page


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_an_alert_has_a_test_in_which_it_fires_and_before_which_it_is_silent(alert: dict[str, Any]) -> None:
    mark = f'alertname="{alert["alert"]}", alertstate="firing", severity="{alert["labels"]["severity"]}"'
    asked = [test.get("promql_expr_test", []) for test in watched.tests_of_rules()]
    fires = [
        looks for looks in asked if any(mark in sample["labels"] for look in looks for sample in look["exp_samples"])
    ]
    assert fires
    assert all(mark not in str(looks[0]["exp_samples"]) for looks in fires)


@pytest.mark.parametrize("page", watched.RUNBOOKS, ids=lambda page: page.stem)
def test_a_runbook_belongs_to_an_alert_and_has_what_is_asked_of_it_at_night(page: Any) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    assert f"docs/runbooks/{page.name}" in {_runbook(alert) for alert in ALERTS}
    assert text.startswith(
        f"# {next(alert['alert'] for alert in ALERTS if _runbook(alert).endswith('/' + page.name))}\n"
    )
    assert [link for link in re.findall(r"\]\(([^)#]+)", text) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", watched.RUNBOOKS, ids=lambda page: page.stem)
def test_the_commands_of_a_runbook_are_ones_that_there_are(page: Any) -> None:
    text = page.read_text(encoding="utf-8")
    commands = re.findall(r"^workerctl .*?$", text, re.MULTILINE) + re.findall(r"`(workerctl [^`]+)`", text)
    assert commands
    for command in commands:
        _read(shlex.split(command, comments=True)[1:])


def _read(words: list[str]) -> None:
    """As the command line reads them; what is wrong with them is raised."""
    command = COMMANDS
    context = command.make_context("workerctl", words)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize(
    ("uid", "panel"), PANELS, ids=lambda value: value if isinstance(value, str) else value["title"]
)
def test_a_panel_says_what_it_shows_and_in_which_unit(uid: str, panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 15, uid
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert {target["datasource"]["uid"] for target in panel["targets"]} | {panel["datasource"]["uid"]} == {"prometheus"}
    named = re.search(r"\(runbooks? ([\w, -]+)\)", panel["description"])
    for name in named[1].split(", ") if named else []:
        assert (ROOT / f"docs/runbooks/{name}.md").is_file()


def test_dashboards_keep_their_addresses_and_can_be_narrowed_down() -> None:
    found = {board["uid"]: {each["name"] for each in board["templating"]["list"]} for board in watched.dashboards()}
    assert found == {
        "workerd-overview": {"queue", "node"},
        "workerd-queue": {"queue", "task"},
        "workerd-node": {"node"},
    }


def test_rules_and_dashboards_ask_only_for_what_the_daemon_tells() -> None:
    variables = [each["query"]["query"] for board in watched.dashboards() for each in board["templating"]["list"]]
    asked = [alert["expr"] for alert in ALERTS] + variables + [text for _, text in watched.expressions()]
    told = _told()
    assert {name for text in asked for name in watched.names(text) if name.startswith("workerd_")} <= told.keys()
    for text in asked:
        for name, matchers in re.findall(r"\b(workerd_\w+)\{([^}]*)\}", text):
            assert set(re.findall(r"(\w+)=", matchers)) <= told[name], text


def test_no_metric_of_the_daemon_is_left_out() -> None:
    shown = {name for _, text in watched.expressions() for name in watched.names(text)}
    assert {name for name in _told() if not name.endswith(("_bucket", "_sum", "_count"))} - shown == set()
