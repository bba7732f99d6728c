"""The files of the schema, as texts."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
_TABLE = re.compile(r"^CREATE TABLE workerd\.(\w+)", re.MULTILINE)
# Functions call each other, and those in SQL would be checked while what they call is not there yet.
_ANY_ORDER = "SET LOCAL check_function_bodies = off;"
# For jobs that end before a leader has made the days that it keeps ready.
_FIRST_DAYS = "SELECT workerd.add_history_days('{604800, 2592000}');"


def read(name: str) -> str:
    """The text of one file, such as `tables.sql`."""
    return (HERE / name).read_text(encoding="utf-8").strip()


def tables() -> str:
    """What makes the types, tables and indexes in an empty schema."""
    return "\n\n".join(map(read, ("types.sql", "tables.sql", "indexes.sql")))


def names_of_tables() -> set[str]:
    """The tables that are made, partitions aside."""
    return set(_TABLE.findall(read("tables.sql")))


@cache
def repeatable() -> str:
    """What makes the functions and views, or replaces those that are there."""
    functions = sorted(path.name for path in (HERE / "functions").glob("*.sql"))
    return "\n\n".join([_ANY_ORDER, *(read(f"functions/{name}") for name in functions), read("views.sql"), _FIRST_DAYS])


def digest() -> str:
    """Tells these functions and views from those of another version."""
    return hashlib.sha256(repeatable().encode()).hexdigest()


def numbered() -> list[tuple[int, str, str]]:
    """The migrations: number, name and text, in their order."""
    found = []
    for path in sorted((HERE / "migrations").glob("[0-9]*_*.sql")):
        number, _, name = path.stem.partition("_")
        found.append((int(number), name, path.read_text(encoding="utf-8")))
    return found
