"""The arguments of a task: bound by its signature, checked by its annotations, carried as JSON, restored for its handler."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from workerd.argument import Argument
from workerd.errors import PayloadError, TaskError
from workerd.handler import called

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping


class Arguments:
    """Those that a payload gives to one task: its parameters but the `injected` ones. Raises TaskError for what has no name."""

    def __init__(self, task: str, fn: Callable[..., Any], injected: Collection[str], reserved: Collection[str]) -> None:
        self._task = task
        whole = inspect.signature(fn)
        self.signature = whole.replace(parameters=[p for p in whole.parameters.values() if p.name not in injected])
        parameters = self.signature.parameters.values()
        for parameter in parameters:
            _check(task, parameter, reserved)
        named = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
        self._required = frozenset(p.name for p in named if p.default is inspect.Parameter.empty)
        self._known = frozenset(p.name for p in named)
        self._others = next((p.name for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD), None)
        scope = getattr(inspect.unwrap(called(fn)), "__globals__", {})
        arguments = {p.name: Argument(task, p, scope) for p in parameters}
        self._other = arguments.get(self._others) if self._others else None
        self._typed = {name: argument for name, argument in arguments.items() if argument.exact is not None}
        if self._other is not None and self._other.exact is None:
            self._other = None

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The arguments of a call by their names. Raises TaskError when they do not fit the signature."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TaskError(f"task {self._task}: {self._said(error, kwargs)}") from error
        named = dict(bound.arguments)
        if self._others is not None:
            named.update(named.pop(self._others, {}))
        return named

    def carried(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """The payload with what JSON can carry in place of other values. Raises PayloadError for values of a wrong type."""
        return self._each(payload, Argument.carried) if payload else payload

    def restored(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the handler gets for a payload that was JSON. Raises PayloadError when it does not fit the task."""
        if not payload and not self._required:
            return payload
        names = payload.keys()
        if names != self._known and not (
            names >= self._required and (self._others is not None or names <= self._known)
        ):
            raise PayloadError(f"the payload does not fit {self._task}{self.signature}: {self._misfit(payload)}")
        return self._each(payload, Argument.restored) if payload else payload

    def _misfit(self, payload: Mapping[str, Any]) -> str:
        try:
            self.signature.bind(**payload)
        except TypeError as error:
            return self._said(error, payload)
        return ""

    def _said(self, error: TypeError, given: Mapping[str, Any]) -> str:
        """Python names the first mistake alone: a misspelt argument is seen as missing, not as unknown."""
        unknown = ", ".join(repr(name) for name in given if name not in self._known)
        if not unknown or self._others is not None or "unexpected keyword" in str(error):
            return str(error)
        return f"{error}, and there is no argument {unknown}"

    def _each(self, payload: Mapping[str, Any], convert: Callable[[Argument, str, Any], Any]) -> Mapping[str, Any]:
        changed = {}
        for name, value in payload.items():
            argument = self._typed.get(name) or (None if name in self._known else self._other)
            if argument is not None and type(value) not in argument.exact:  # type: ignore[operator]  # those without are left out
                changed[name] = convert(argument, name, value)
        return {**payload, **changed} if changed else payload


def _check(task: str, parameter: inspect.Parameter, reserved: Collection[str]) -> None:
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        raise TaskError(f"task {task}: *{parameter.name} cannot be carried, arguments of a job have names")
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise TaskError(f"task {task}: {parameter.name} cannot be given by name, arguments of a job have names")
    if parameter.name in reserved:
        raise TaskError(f"task {task}: the parameter {parameter.name} has the name of an option of enqueue, rename it")
