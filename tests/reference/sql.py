"""The functions and views of the schema `workerd`, from a database that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.reference.page import code, page, table

if TYPE_CHECKING:
    from workerd.job import AnyConnection

PUBLIC = ("enqueue", "enqueue_many", "signal")
VIEWS = ("task_queue", "job", "limit_in_force")
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
FUNCTIONS = """
    SELECT proname, max(obj_description(oid, 'pg_proc')) AS said FROM pg_proc WHERE pronamespace = 'workerd'::regnamespace
    GROUP BY proname ORDER BY proname
"""
SAID = "SELECT max(obj_description(oid, 'pg_proc')) FROM pg_proc WHERE pronamespace = 'workerd'::regnamespace AND proname = $1"
SHOWN = "SELECT obj_description(format('workerd.%I', $1::text)::regclass, 'pg_class')"
TABLES = """
    SELECT relname, array(
        SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum) AS columns
    FROM pg_class c WHERE relnamespace = 'workerd'::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition ORDER BY relname
"""


async def text(connection: AnyConnection) -> str:
    return page(
        "SQL",
        "What applications call. How is in [database](../database.md#the-schema-workerd), who may in [roles](../roles.md).",
        *[await _function(connection, name) for name in PUBLIC],
        *[await _view(connection, name) for name in VIEWS],
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


async def _function(connection: AnyConnection, name: str) -> str:
    about = await connection.fetchval(SAID, name)
    result = await connection.fetchval(RESULT, name)
    rows = [(code(r["name"]), r["type"], _preset(r["preset"])) for r in await connection.fetch(ARGUMENTS, name)]
    return f"## workerd.{name}\n\n{about} Returns {code(result)}.\n\n{table(('argument', 'type', 'default'), rows)}"


def _preset(default: str | None) -> str | None:
    """A default without its type, which stands beside it."""
    return default and code(default.partition("::")[0])


async def _view(connection: AnyConnection, name: str) -> str:
    about = await connection.fetchval(SHOWN, name)
    rows = [(code(row["name"]), row["type"]) for row in await connection.fetch(COLUMNS, name)]
    return f"## workerd.{name} (view)\n\n{about}\n\n{table(('column', 'type'), rows)}"


async def _internals(connection: AnyConnection) -> str:
    rows = [(row["proname"], row["said"]) for row in await connection.fetch(FUNCTIONS) if row["proname"] not in PUBLIC]
    return table(("function", "what"), [(code(name), said) for name, said in rows])
