"""What failed in the same way has one fingerprint, what failed otherwise another."""

from __future__ import annotations

import subprocess
import sys

import pytest

from workerd.daemon.endings import describe
from workerd.fingerprint import fingerprint, normal


def caught(call: object, *arguments: object) -> str:
    assert callable(call)
    try:
        call(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return describe(error)
    raise AssertionError("it did not fail")


def order(number: int, deep: int = 0) -> None:
    if deep:
        order(number, deep - 1)
    elif number < 100:
        raise ValueError(f"order {number} is wrong")
    else:
        raise ValueError(f"order {number} is wrong")  # another line of the same function


def invoice(number: int) -> None:
    raise ValueError(f"order {number} is wrong")


def key(number: int) -> None:
    raise KeyError(number)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (caught(order, 1), caught(order, 2), True),
        (caught(order, 1), caught(order, 200), True),
        (caught(order, 1), caught(invoice, 1), False),
        (caught(order, 1), caught(order, 1, 1), False),
        (caught(key, 1), caught(key, 2), True),
        (caught(int, "x"), caught(int, "y"), True),
        (caught(subprocess.run, ["/no/such"]), caught(subprocess.run, ["/no/other"]), True),
        ("no customer 5 at 'Ada'", "no customer 7 at 'Bob'", True),
        ("no customer 5", "no order 5", False),
        ("timeout: it ran longer than 30 s", "timeout: it ran longer than 1.5 s", True),
    ],
)
def test_failures_are_the_same_or_not(one: str, other: str, same: bool) -> None:
    assert (fingerprint(one) == fingerprint(other)) == same


def test_a_fingerprint_is_short_and_the_same_in_every_process() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "from workerd.fingerprint import fingerprint; print(fingerprint('no customer 5'))"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)},
    )
    assert told.stdout.strip() == fingerprint("no customer 123")
    assert len(fingerprint("")) == 12


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("row 0x7f3a of 12,345.5", "row ID of N"),
        ("job 6f1c2e9a-0000-4000-8000-123456789abc", "job ID"),
        ("commit deadbeef1", "commit ID"),
        ("decade facade", "decade facade"),
        ("open '/tmp/a' failed", "open TEXT failed"),
        ("open /tmp/a/b.pdf", "open PATH"),
        ("GET https://a.example/x?y=1 500", "GET ADDRESS N"),
    ],
)
def test_what_differs_from_one_failure_to_the_next_counts_for_nothing(line: str, shown: str) -> None:
    assert normal(line) == shown
