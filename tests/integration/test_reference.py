"""The reference pages of the documentation are what the code says: whatever they lack fails here, be it a setting or a metric.

`make reference` runs these with REFERENCE=write: then the pages are written.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.reference import page, pages, sql
from tests.support import InProcess

if TYPE_CHECKING:
    import asyncpg

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

WRITE = os.environ.get("REFERENCE") == "write"  # read here, before the tests' environment is cleaned


def check(name: str, made: str) -> None:
    path = page.path(name)
    if WRITE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(made, encoding="utf-8")
    assert path.read_text(encoding="utf-8").splitlines() == made.splitlines(), "not current: make reference"


@pytest.mark.parametrize("name", pages.FROM_CODE)
def test_what_the_code_knows_is_in_the_reference(name: str) -> None:
    check(name, pages.FROM_CODE[name]())


async def test_functions_and_views_are_in_the_reference(db: DB) -> None:
    check("sql", await sql.text(db))


async def test_metrics_are_in_the_reference(settings: Settings, queue: Queue) -> None:
    served = settings.model_copy(update={"enable_metrics": True, "metrics_port": 0})
    async with InProcess(served) as node:
        check("metrics", await pages.of_metrics(node, queue))
