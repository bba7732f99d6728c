"""What a type checker knows of a task by its first parameters, so that it checks the arguments of `enqueue` in their places.

A ParamSpec cannot be joined with keywords, which are the options of an enqueue, and it demands `job`, which no caller gives. So the
parameters are taken one by one from the task's own call: those given by place are checked by every type checker, those given by name
by mypy with the plugin `workerd.mypy`, and all of them when they are enqueued.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

A = TypeVar("A", contravariant=True)
B = TypeVar("B", contravariant=True)
C = TypeVar("C", contravariant=True)
D = TypeVar("D", contravariant=True)


class Takes1(Protocol[A]):
    def __call__(self, a: A, /, *args: Any, **kwargs: Any) -> Any: ...


class Takes2(Protocol[A, B]):
    def __call__(self, a: A, b: B, /, *args: Any, **kwargs: Any) -> Any: ...


class Takes3(Protocol[A, B, C]):
    def __call__(self, a: A, b: B, c: C, /, *args: Any, **kwargs: Any) -> Any: ...


class Takes4(Protocol[A, B, C, D]):
    def __call__(self, a: A, b: B, c: C, d: D, /, *args: Any, **kwargs: Any) -> Any: ...
