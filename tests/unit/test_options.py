"""Each option of an enqueue is a flag of the command, a member of the manager's requests, and documented."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from tests.support import ROOT
from workerctl.commands.enqueue import enqueue
from workerctl.manager.models import NewJob
from workerd import Queue, TaskError, task
from workerd.asked import DEFINITIONS, arguments

PAGES = ("options.md", "tasks.md", "dependencies.md")


@task
def documented() -> None: ...


@pytest.mark.parametrize("name", sorted(DEFINITIONS))
def test_an_option_is_known_wherever_jobs_are_enqueued(name: str) -> None:
    assert name in NewJob.model_fields
    assert name in inspect.signature(enqueue).parameters or name == "max_retries"  # a setting, whose flag is taken
    assert any(re.search(rf"`{name}\b", (ROOT / "docs" / page).read_text()) for page in PAGES)
    for function in (Queue.enqueue, documented.enqueue, documented.enqueue_sync):
        assert f"  {name}: {DEFINITIONS[name].help}" in (inspect.getdoc(function) or "")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"colour": "red", "size": 3}, "enqueue knows no option colour, size"),
        ({"delay": 1, "run_at": 2}, "delay and run_at exclude each other"),
        ({"pin": "a", "prefer": "b"}, "pin and prefer exclude each other"),
        ({"priority": 2**15}, "priority is 32768, allowed is a whole number from -32768 to 32767"),
        ({"key_until": "noon"}, "key_until is 'noon', allowed is finished or started"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(TaskError, match=reason):
        arguments(options)


def test_what_is_none_or_the_default_is_not_given() -> None:
    assert arguments({"queue": None, "conflict": "keep", "key_until": "finished"}) == {}
