"""The functions and views of the schema `workerd`, from a database that has it."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING

from tests.reference.page import code, page, table

if TYPE_CHECKING:
    from workerd.job import AnyConnection

PUBLIC = {
    "enqueue": "Makes a job and returns its id; with a key whose job is not finished, that job's. In any transaction of any language.",
    "enqueue_many": "Makes a job of each payload (JSON as text), of one task; returns their ids in that order.",
    "signal": "Answers a job that waits for an event, or will; false: it was answered before, and that holds.",
}
VIEWS = {
    "task_queue": "All jobs, in columns as other systems name them.",
    "job": "All jobs, in the words of this documentation.",
    "limit_in_force": "What limits queues and tasks now.",
}
ARGUMENTS = """
    SELECT a.name, format_type(a.type, NULL) AS type, pg_get_function_arg_default(p.oid, a.place::int) AS preset
    FROM pg_proc p, unnest(p.proargnames, coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY AS a (name, type, place)
    WHERE p.pronamespace = 'workerd'::regnamespace AND p.proname = $1 ORDER BY a.place
"""
RESULT = "SELECT pg_get_function_result(oid) FROM pg_proc WHERE pronamespace = 'workerd'::regnamespace AND proname = $1"
COLUMNS = """
    SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
    WHERE attrelid = format('workerd.%I', $1::text)::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
FUNCTIONS = "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'workerd'::regnamespace ORDER BY proname"
TABLES = """
    SELECT relname, array(
        SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum) AS columns
    FROM pg_class c WHERE relnamespace = 'workerd'::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition ORDER BY relname
"""
_MADE = re.compile(r"((?:^--(?! part).*\n)*)^CREATE (?:OR REPLACE )?FUNCTION workerd\.(\w+)\(", re.MULTILINE)


async def text(connection: AnyConnection) -> str:
    return page(
        "SQL",
        "What applications call. How is in [database](../database.md#the-schema-workerd), who may in [roles](../roles.md).",
        *[await _function(connection, name, about) for name, about in PUBLIC.items()],
        *[await _view(connection, name, about) for name, about in VIEWS.items()],
        "## What daemons use\n\nNot for applications: names and columns change with the schema's version.",
        await _internals(connection),
        table(
            ("table or view", "columns"),
            [
                (code(row["relname"]), ", ".join(row["columns"]))
                for row in await connection.fetch(TABLES)
                if row["relname"] not in VIEWS
            ],
        ),
    )


async def _function(connection: AnyConnection, name: str, about: str) -> str:
    result = await connection.fetchval(RESULT, name)
    rows = [(code(r["name"]), r["type"], _preset(r["preset"])) for r in await connection.fetch(ARGUMENTS, name)]
    return f"## workerd.{name}\n\n{about} Returns {code(result)}.\n\n{table(('argument', 'type', 'default'), rows)}"


def _preset(default: str | None) -> str | None:
    """A default without its type, which stands beside it."""
    return default and code(default.partition("::")[0])


async def _view(connection: AnyConnection, name: str, about: str) -> str:
    rows = [(code(row["name"]), row["type"]) for row in await connection.fetch(COLUMNS, name)]
    return f"## workerd.{name} (view)\n\n{about}\n\n{table(('column', 'type'), rows)}"


async def _internals(connection: AnyConnection) -> str:
    said = _comments()
    names = [row["proname"] for row in await connection.fetch(FUNCTIONS) if row["proname"] not in PUBLIC]
    return table(("function", "what"), [(code(name), said.get(name)) for name in names])


def _comments() -> dict[str, str]:
    """What the migrations say above each function; what is newer comes later, and may go on from what was said before."""
    said: dict[str, str] = {}
    folder = resources.files("workerd.queue").joinpath("migrations")
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        if file.name.endswith(".sql"):
            for comment, name in _MADE.findall(file.read_text(encoding="utf-8")):
                words = " ".join(line.removeprefix("--").strip() for line in comment.splitlines())
                goes_on = words.startswith(("As before", "Also"))
                said[name] = " ".join(filter(None, (said.get(name), words))) if goes_on else words or said.get(name, "")
    return said
