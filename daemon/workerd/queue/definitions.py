"""Definitions: what the migrations make of the schema, against what is in the database."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from workerd.queue.database import Connection

FILE = "definitions.txt"  # what the migrations make; written by `make definitions`

# Partitions of the history follow their parent. Names are written in full, whatever the role's search_path.
_ALIKE = "SET LOCAL search_path = pg_catalog"
_TABLES = """
    WITH ours AS (
        SELECT c.oid, c.relname AS name, c.relkind AS kind, c.reloptions FROM pg_class c
        WHERE c.relnamespace = to_regnamespace('workerd') AND c.relkind IN ('r', 'p', 'v', 'S') AND NOT c.relispartition)
"""
# What the server writes anew for each version is left out or made alike: of views the parentheses and the prefixes of columns, the
# constraints NOT NULL that are the columns' own.
_DEFINITIONS = rf"""{_TABLES}
    SELECT CASE kind WHEN 'S' THEN 'sequence ' ELSE 'table ' END || name, coalesce((
        SELECT string_agg(o, ' ' ORDER BY o) FROM unnest(reloptions) o WHERE o NOT LIKE 'autovacuum\_enabled=%'), '')
    FROM ours WHERE kind <> 'v'
    UNION ALL SELECT 'view ' || name, md5(regexp_replace(pg_get_viewdef(oid), '[\s()]|\m\w+\.', '', 'g')) FROM ours WHERE kind = 'v'
    UNION ALL SELECT format('column %s.%s', o.name, a.attname), concat_ws(' ', format_type(a.atttypid, a.atttypmod),
        CASE WHEN a.attnotnull THEN 'NOT NULL' END, nullif(a.attidentity, ''), nullif(a.attgenerated, ''), pg_get_expr(d.adbin, d.adrelid))
    FROM ours o JOIN pg_attribute a ON a.attrelid = o.oid LEFT JOIN pg_attrdef d ON d.adrelid = o.oid AND d.adnum = a.attnum
    WHERE o.kind <> 'S' AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT format('constraint %s.%s', o.name, k.conname), pg_get_constraintdef(k.oid)
    FROM ours o JOIN pg_constraint k ON k.conrelid = o.oid WHERE k.contype NOT IN ('n', 't')
    UNION ALL SELECT format('index %s.%s', o.name, c.relname), pg_get_indexdef(c.oid)
    FROM ours o JOIN pg_index i ON i.indrelid = o.oid JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relname !~ '_cc(new|old)\d*$'
    UNION ALL SELECT format('trigger %s.%s', o.name, t.tgname), pg_get_triggerdef(t.oid)
    FROM ours o JOIN pg_trigger t ON t.tgrelid = o.oid WHERE NOT t.tgisinternal
    UNION ALL SELECT 'function ' || p.oid::regprocedure, md5(concat_ws(' ', p.prosrc, pg_get_function_arguments(p.oid),
        pg_get_function_result(p.oid), p.provolatile, p.proparallel, p.prosecdef, p.proisstrict, p.proconfig::text))
    FROM pg_proc p WHERE p.pronamespace = to_regnamespace('workerd')
"""  # noqa: S608 - constants
_INVALID = """
    SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    WHERE t.relnamespace = to_regnamespace('workerd') AND NOT i.indisvalid AND NOT EXISTS (
        SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = c.oid)
    ORDER BY c.relname
"""
_OF_TABLES = ("column", "constraint", "index", "trigger")


@dataclass(frozen=True, slots=True)
class Drift:
    """An object that is not as the migrations made it, such as `index ready.ready_id`; `made`: as they made it."""

    object: str
    how: Literal["missing", "changed", "added"]
    made: str = ""

    @property
    def is_tuning(self) -> bool:
        """Whether it is no more than storage settings of a table."""
        return self.how == "changed" and self.object.startswith("table ")

    @property
    def remedy(self) -> str | None:
        """The statement that makes it anew beside the work of others, where one is enough."""
        kind, _, name = self.object.partition(" ")
        table, _, own = name.partition(".")
        if self.is_tuning and self.made:
            return f"ALTER TABLE workerd.{name} SET ({', '.join(self.made.split())})"
        if self.how == "missing" and kind == "constraint":
            return f"ALTER TABLE workerd.{table} ADD CONSTRAINT {own} {self.made}"
        if self.how == "missing" and kind == "index" and " ON ONLY " not in self.made:
            return self.made.replace(" INDEX ", " INDEX CONCURRENTLY ", 1)
        return None


async def drift(connection: Connection) -> list[Drift]:
    """How a schema of this program's version differs from what the migrations make.

    What is added to our tables is written with each job; further tables, views and functions hinder nobody.
    """
    expected, found = known(), await definitions(connection)
    missing = expected.keys() - found.keys()
    differs = [Drift(name, "missing", expected[name]) for name in missing if not _whole(name) & missing]
    differs += [
        Drift(name, "changed", text) for name, text in expected.items() if name in found and found[name] != text
    ]
    differs += [Drift(name, "added") for name in found.keys() - expected.keys() if _whole(name) & expected.keys()]
    return sorted(differs, key=lambda each: each.object)


def _whole(name: str) -> set[str]:
    """The table or view that an object is a part of: when that is missing it says so for its columns and indexes."""
    kind, _, rest = name.partition(" ")
    parent = rest.partition(".")[0]
    return {f"table {parent}", f"view {parent}"} if kind in _OF_TABLES else set()


async def invalid_indexes(connection: Connection) -> list[str]:
    """Indexes that the server keeps up and does not read, since what built them was interrupted."""
    return [row["relname"] for row in await connection.fetch(_INVALID)]


async def definitions(connection: Connection) -> dict[str, str]:
    """Each object of the schema as it is in the database."""
    async with connection.transaction():
        await connection.execute(_ALIKE)
        return {name: " ".join(text.split()) for name, text in await connection.fetch(_DEFINITIONS)}


def known() -> dict[str, str]:
    """Each object as the migrations make it."""
    text = resources.files("workerd.queue").joinpath(FILE).read_text(encoding="utf-8")
    return dict(line.split("\t", 1) for line in text.splitlines())


def written(found: dict[str, str]) -> str:
    """Definitions as the file holds them."""
    return "".join(f"{name}\t{text}\n" for name, text in sorted(found.items()))
