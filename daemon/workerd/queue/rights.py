"""Rights: what the role of a connection lacks of what daemons need, by the grants of roles.sql."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from workerd.queue.schema import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workerd.job import AnyConnection

_GRANT = re.compile(
    r"^\s*GRANT (.+?)\s+ON\s+(SEQUENCE|SCHEMA|FUNCTION)?\s*(.+?)\s+TO\s+(.+?);", re.MULTILINE | re.DOTALL
)
_PRIVILEGE = re.compile(r"(\w+)(?: \(([^)]*)\))?")
_NEEDED_BY = ("{prefix}_work", "{prefix}_enqueue")  # the first is a member of the second
_OPTIONAL = ("MAINTAIN",)  # from PostgreSQL 17 on
# A function is named without its arguments: there is one of each name. What is not there at all is no matter of rights.
_LACKED = """
    SELECT DISTINCT privilege, object FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS n(kind, object, privilege, col)
    WHERE NOT coalesce(CASE kind
        WHEN 'SCHEMA' THEN has_schema_privilege(to_regnamespace(object)::oid, privilege)
        WHEN 'SEQUENCE' THEN has_sequence_privilege(to_regclass(object)::oid, privilege)
        WHEN 'FUNCTION' THEN has_function_privilege(to_regproc(object)::oid, privilege)
        WHEN 'COLUMN' THEN has_column_privilege(to_regclass(object)::oid, col, privilege)
        ELSE has_table_privilege(to_regclass(object)::oid, privilege) END, true)
    ORDER BY 2, 1
"""


_MAY_USE = "SELECT to_regnamespace('workerd') IS NULL OR has_schema_privilege(to_regnamespace('workerd'), 'USAGE')"


async def may_use(connection: AnyConnection) -> bool:
    """Whether the role may look into the schema, if there is one."""
    may: bool = await connection.fetchval(_MAY_USE)
    return may


async def lacked(connection: AnyConnection) -> list[str]:
    """What the role may not, such as `INSERT on workerd.lease`; nothing for one that may run daemons."""
    needed = list(dict.fromkeys(_needed()))
    rows = await connection.fetch(_LACKED, *(list(column) for column in zip(*needed, strict=True)))
    return [f"{row['privilege']} on {row['object']}" for row in rows]


def _needed() -> Iterator[tuple[str, str, str, str | None]]:
    """Kind, object, privilege and column of each grant to the roles of daemons."""
    text = re.sub(r"--.*", "", files.read("roles.sql"))
    for privileges, kind, objects, roles in _GRANT.findall(text):
        if not set(re.split(r",\s*", roles)) & set(_NEEDED_BY):
            continue
        for name in re.split(r",\s*", objects):
            for privilege, columns in _PRIVILEGE.findall(privileges):
                if privilege not in _OPTIONAL:
                    for column in columns.split(", ") if columns else [None]:
                        yield "COLUMN" if column else kind, name, privilege, column
