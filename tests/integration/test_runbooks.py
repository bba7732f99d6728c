"""What the runbooks ask the server is what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.examples import examples

if TYPE_CHECKING:
    import asyncpg

PAGES = ("runbooks/dead-rows.md", "runbooks/old-snapshot.md", "runbooks/old-transaction.md")


@pytest.mark.parametrize("page", PAGES)
async def test_the_server_answers_what_a_runbook_asks(page: str, db: asyncpg.Connection[asyncpg.Record]) -> None:
    questions = examples(page, "sql")
    assert questions
    for question in "".join(questions).split(";\n"):
        await db.fetch(question)
