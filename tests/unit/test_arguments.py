"""The arguments of jobs: checked by annotations where they are enqueued, carried as JSON, restored where they are run."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable, Sequence  # noqa: TC003 - annotations are read at run time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from pydantic import BaseModel

from workerd import PayloadError, TaskError, codec, task
from workerd.queue.enqueue import payload_text

if TYPE_CHECKING:
    from fractions import Fraction

    from workerd.tasks import Task

pytestmark = pytest.mark.usefixtures("own_registry")


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


@dataclass
class Line:
    text: str
    price: Decimal


class Invoice(BaseModel):
    number: str
    lines: list[Line]
    issued: datetime


NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def there(task: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The arguments as the handler gets them, having been JSON."""
    return task.arguments.restored(codec.loads(payload_text(task, task.arguments.bind(*args, **kwargs))))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (datetime, NOW),
        (date, date(2026, 3, 1)),
        (timedelta, timedelta(days=2, seconds=3)),
        (Decimal, Decimal("1.10")),
        (uuid.UUID, uuid.UUID(int=7)),
        (Colour, Colour.GREEN),
        (Path, Path("a/b.pdf")),
        (bytes, b"\x00\xff"),
        (Line, Line("paper", Decimal("2.50"))),
        (Invoice, Invoice(number="7", lines=[Line("paper", Decimal(3))], issued=NOW)),
        (list[Line], [Line("a", Decimal(1)), Line("b", Decimal(2))]),
        (dict[str, Decimal], {"total": Decimal("9.99")}),
        (datetime | None, NOW),
        (datetime | None, None),
        (set[int], {1, 2}),
        (tuple[int, Colour], (1, Colour.RED)),
        (Literal["a", "b"], "b"),
        (Any, {"x": [1, None]}),
    ],
    ids=str,
)
def test_a_value_of_its_annotation_is_carried_as_json_and_restored(kind: Any, value: object) -> None:
    def handler(x: object) -> None: ...

    handler.__annotations__["x"] = kind
    declared = task(handler)
    restored = there(declared, value)
    assert restored == {"x": value}
    assert type(restored["x"]) is type(value)


def test_the_json_of_a_value_is_as_good_as_the_value() -> None:
    @task
    def handler(at: datetime, colour: Colour, line: Line) -> None: ...

    given = {"at": "2026-03-01T12:30:00Z", "colour": "red", "line": {"text": "x", "price": "1"}}
    assert there(handler, **given) == {"at": NOW, "colour": Colour.RED, "line": Line("x", Decimal(1))}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": 5}, r"task handler: argument path: Input should be a valid string \(got 5, its type is str\)"),
        ({"pages": "x"}, "argument pages: Input should be a valid integer"),
        ({"pages": True}, "argument pages: Input should be a valid integer"),
        ({"pages": 1.5}, "argument pages: Input should be a valid integer"),
        ({"at": "yesterday"}, "argument at: Input should be a valid datetime"),
        ({"colour": "blue"}, "argument colour: Input should be 'red' or 'green'"),
        ({"lines": [{"text": "x", "price": "much"}]}, r"argument lines\.0\.price: Input should be a valid decimal"),
        ({"invoice": {"number": "1"}}, r"argument invoice\.lines: Field required"),
        ({"path": object()}, "argument path: Input should be a valid string"),
        ({"other": "x"}, "argument other: Input should be a valid integer"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_in_one_line_where_it_is_enqueued(
    arguments: dict[str, Any], said: str
) -> None:
    @task
    def handler(
        path: str = "",
        pages: int = 0,
        at: datetime = NOW,
        colour: Colour = Colour.RED,
        lines: Sequence[Line] = (),
        invoice: Invoice | None = None,
        **others: int,
    ) -> None: ...

    with pytest.raises(PayloadError, match=said) as raised:
        payload_text(handler, arguments)
    assert "\n" not in str(raised.value)


def test_none_is_allowed_where_it_is_the_default() -> None:
    @task
    def handler(path: str = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013 - as many write it

    assert there(handler, path=None) == {"path": None}


def test_a_payload_of_another_program_is_checked_before_the_handler_runs() -> None:
    @task
    def handler(path: str, *, at: datetime | None = None) -> None: ...

    assert handler.arguments.restored({"path": "x", "at": None}) == {"path": "x", "at": None}
    refused: list[tuple[dict[str, Any], str]] = [
        ({}, r"the payload does not fit handler\(path: .*missing a required argument: 'path'"),
        ({"paht": "x"}, "missing a required argument: 'path', and there is no argument 'paht'"),
        ({"path": "x", "nope": 1}, "got an unexpected keyword argument 'nope'"),
        ({"path": 1}, "argument path: Input should be a valid string"),
        ({"path": "x", "at": 12.5}, "argument at: Input should be a valid datetime"),
    ]
    for payload, said in refused:
        with pytest.raises(PayloadError, match=said):
            handler.arguments.restored(payload)


def test_what_type_checkers_alone_know_is_taken_as_json_and_nothing_else() -> None:
    @task
    def handler(x: Fraction) -> None: ...

    assert there(handler, "1/3") == {"x": "1/3"}
    with pytest.raises(TaskError, match="Fraction is known to type checkers alone: import it at run time too"):
        payload_text(handler, {"x": NOW})


def test_an_annotation_that_no_json_stands_for_is_said_where_a_value_comes() -> None:
    class Connection: ...

    def handler(x: object = None) -> None: ...

    handler.__annotations__["x"] = Connection
    declared = task(handler)
    assert there(declared) == {}
    with pytest.raises(TaskError, match="Connection of an argument: JSON carries no such values: use a dataclass"):
        payload_text(declared, {"x": Connection()})


def test_without_annotations_anything_that_has_a_json_goes() -> None:
    @task
    def handler(x, y=None):  # type: ignore[no-untyped-def]
        ...

    assert there(handler, 1, [Decimal("1.5")]) == {"x": 1, "y": ["1.5"]}
    with pytest.raises(PayloadError, match="is not JSON"):
        payload_text(handler, {"x": object()})


def test_a_result_is_written_as_json_whatever_its_type() -> None:
    value = {"total": Decimal("9.99"), "invoice": Invoice(number="7", lines=[], issued=NOW), "path": Path("a")}
    assert codec.loads(codec.dumps(value, "it")) == {
        "total": "9.99",
        "invoice": {"number": "7", "lines": [], "issued": "2026-03-01T12:30:00Z"},
        "path": "a",
    }


def test_values_that_need_no_look_are_handed_on_as_they_are() -> None:
    @task
    def handler(a: str, b: dict[str, Any], c: int | None, f: Callable[[], int] = lambda: 1) -> None: ...

    payload = {"a": "x", "b": {"y": 1}, "c": None}
    assert handler.arguments.restored(payload) is payload
    assert handler.arguments.carried(payload) is payload
