"""A plugin for mypy: `plugins = ["workerd.mypy"]` lets it check all arguments of `enqueue`, also those given by name, and the options.

https://mypy.readthedocs.io/en/stable/extending_mypy.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.nodes import ARG_NAMED_OPT, ARG_STAR2
from mypy.plugin import MethodSigContext, Plugin
from mypy.types import Instance, Parameters, get_proper_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy.nodes import ArgKind
    from mypy.types import CallableType, FunctionLike, Type

ENQUEUE = ("workerd.tasks.Task.enqueue", "workerd.tasks.Task.enqueue_sync")


class TaskPlugin(Plugin):
    def get_method_signature_hook(self, fullname: str) -> Callable[[MethodSigContext], FunctionLike] | None:
        return _signature if fullname in ENQUEUE else None


def _signature(context: MethodSigContext) -> FunctionLike:
    """The task's own parameters but `job`, then the options, which one of the overloads has."""
    declared = context.default_signature.with_unpacked_kwargs()
    task = get_proper_type(context.type)
    of_task = get_proper_type(task.args[0]) if isinstance(task, Instance) and task.args else None
    if not isinstance(of_task, Parameters):
        return declared
    options = [parameter for parameter in _parameters(declared) if parameter[1] == ARG_NAMED_OPT]
    own = [parameter for parameter in _parameters(of_task) if parameter[0] != "job"]
    fitted = sorted([*own, *options], key=lambda parameter: parameter[1] == ARG_STAR2)
    return declared.copy_modified(
        arg_names=[name for name, _, _ in fitted],
        arg_kinds=[kind for _, kind, _ in fitted],
        arg_types=[each for _, _, each in fitted],
    )


def _parameters(of: CallableType | Parameters) -> list[tuple[str | None, ArgKind, Type]]:
    return list(zip(of.arg_names, of.arg_kinds, of.arg_types, strict=True))


def plugin(_version: str) -> type[Plugin]:
    """Called by mypy."""
    return TaskPlugin
