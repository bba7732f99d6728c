"""What is said about the address of a database: never its password."""

from __future__ import annotations

import pytest

from workerd.errors import DatabaseError
from workerd.queue.database import UNREADABLE, connect, location


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:geheim@db.example:5432/app", "db.example:5432/app"),
        ("postgresql://u:geheim@a,b:5433/app?sslmode=require", "a,b:5433/app"),
        ("postgresql://u:ge@heim@db.example/app", "db.example/app"),
        ("postgresql:///app?host=%2Frun%2Fpg&user=u", "/run/pg/app"),
        ("postgresql:///app", "localhost/app"),
        ("postgresql://db.example/app?application_name=a@b", "db.example/app"),
        ("postgresql://u:ge/heim@db.example/app", UNREADABLE),
        ("postgresql://u:ge#heim@db.example/app", UNREADABLE),
        ("postgresql://u:ge?heim@db.example/app", UNREADABLE),
        ("postgresql://u:ge[heim@db.example/app", UNREADABLE),
        ("postgresql://u:12/heim@db.example/app", UNREADABLE),
    ],
)
def test_a_location_has_neither_user_nor_password(dsn: str, shown: str) -> None:
    assert location(dsn) == shown


@pytest.mark.parametrize("password", ["zq/heim", "zq#heim", "zq?heim", "zq[heim", "zq@heim", "1/heim", "zqheim"])
async def test_an_address_that_leads_nowhere_is_told_without_its_password(password: str) -> None:
    with pytest.raises(DatabaseError, match="DATABASE_URL") as raised:
        await connect(f"postgresql://u:{password}@localhost:1/app")
    assert "zq" not in str(raised.value)
    assert "heim" not in str(raised.value)
