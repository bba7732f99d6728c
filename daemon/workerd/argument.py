"""One argument of a task and what its annotation says about values: which are allowed, how JSON carries them."""

from __future__ import annotations

import inspect
from functools import cached_property
from types import NoneType, SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import orjson

from workerd.errors import PayloadError, TaskError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

# The types of decoded JSON that are values of an annotation as they are.
_SAME: dict[Any, frozenset[type]] = {
    str: frozenset({str}),
    int: frozenset({int}),
    float: frozenset({float, int}),
    bool: frozenset({bool}),
    None: frozenset({NoneType}),
    NoneType: frozenset({NoneType}),
    dict: frozenset({dict}),
    list: frozenset({list}),
}
_ANYTHING = (Any, object, inspect.Parameter.empty)


class Argument:
    """An argument of one name, or those of `**names`. What is dear is made when a value needs it first."""

    def __init__(self, task: str, parameter: inspect.Parameter, scope: dict[str, Any]) -> None:
        self._task = task
        self._unknown: NameError | None = None
        self._annotation: Any = parameter.annotation
        try:
            holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
            self._annotation = get_type_hints(holder, globalns=scope, include_extras=True)[parameter.name]
        except NameError as error:  # imported for type checkers alone
            self._unknown = error
        self.exact = frozenset().union(*_SAME.values()) if self._unknown else _exact(self._annotation)
        """The types of values that need no further look; None where any value does not."""
        if self.exact is not None and parameter.default is None:  # `name: str = None` is written by many
            self.exact |= {NoneType}

    def carried(self, name: str, value: Any) -> Any:
        """What JSON holds for the value, which may be that already. Raises PayloadError for one of a wrong type."""
        from pydantic import ValidationError

        try:
            value = self._adapter.validate_python(value, strict=True)
        except ValidationError as error:
            try:
                value = self._adapter.validate_json(orjson.dumps(value), strict=True)
            except orjson.JSONEncodeError:
                raise self._refusal(name, error) from error
            except ValidationError as clearer:
                raise self._refusal(name, clearer) from error
        try:
            return self._adapter.dump_python(value, mode="json", by_alias=True, round_trip=True)
        except ValueError as error:
            raise PayloadError(f"task {self._task}: argument {name} is not JSON: {error}") from error

    def restored(self, name: str, value: Any) -> Any:
        """The value for which the JSON stands. Raises PayloadError when there is none."""
        from pydantic import ValidationError

        try:
            return self._adapter.validate_json(orjson.dumps(value), strict=True)
        except ValidationError as error:
            raise self._refusal(name, error) from error

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        from pydantic import ConfigDict, TypeAdapter
        from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

        if self._unknown is not None:
            raise self._no_type(f"{self._unknown.name} is known to type checkers alone: import it at run time too")
        base64 = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
        for config in (base64, None):  # a dataclass or model has a configuration of its own
            try:
                return TypeAdapter(self._annotation, config=config)
            except (PydanticUserError, PydanticUndefinedAnnotation) as error:
                if error.code != "type-adapter-config-unused":
                    raise self._no_type("JSON carries no such values: use a dataclass or a pydantic model") from error
        raise AssertionError

    def _no_type(self, why: str) -> TaskError:
        return TaskError(f"task {self._task}: {_shown(self._annotation)} of an argument: {why}")

    def _refusal(self, name: str, error: ValidationError) -> PayloadError:
        first = error.errors(include_url=False)[0]
        where = ".".join([name, *map(str, first["loc"])])
        given = f"{first['input']!r:.80}"
        return PayloadError(
            f"task {self._task}: argument {where}: {first['msg']} (got {given}, its type is {_shown(self._annotation)})"
        )


def _exact(annotation: Any) -> frozenset[type] | None:
    """The types of decoded JSON all of whose values the annotation allows; None when it allows all there are."""
    if annotation in _ANYTHING:
        return None
    if get_origin(annotation) in (Union, UnionType):
        parts = [_exact(part) for part in get_args(annotation)]
        return None if None in parts else frozenset[type]().union(*(part for part in parts if part is not None))
    origin, inner = get_origin(annotation), get_args(annotation)
    if inner in ((Any,), (str, Any), (object,), (str, object)):
        return _SAME.get(origin, frozenset())
    return _SAME.get(annotation, frozenset())


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
