"""Is everything in order? check and doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from workerctl import context, render

if TYPE_CHECKING:
    from workerctl.doctor.finding import Finding

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


def check(as_json: AsJson = False) -> int:
    """Check settings, directories, database, schema and tasks; all problems at once, exit 1 if there is any.

    Example: workerctl check
    """
    return _examine(as_json, thorough=False)


def doctor(as_json: AsJson = False) -> int:
    """Look for what slows or stops the queue: all that check does, then server, sessions, tables, nodes, jobs; exit 1 on a problem.

    Example: workerctl doctor
    """
    return _examine(as_json, thorough=True)


def _examine(as_json: bool, *, thorough: bool) -> int:
    from workerctl.doctor.examine import examine

    findings = context.run(examine(thorough=thorough))
    if as_json:
        render.json([each.to_json() for each in findings])
    else:
        _tell(findings)
    return 0 if all(each.ok for each in findings) else 1


def _tell(findings: list[Finding]) -> None:
    """The worst last, where a terminal ends."""
    from workerctl.doctor.finding import counted

    order = ("ok", "warning", "problem")
    rows = [
        (each.level, each.check, "\n".join(filter(None, (each.found, each.advice and f"→ {each.advice}"))))
        for each in sorted(findings, key=lambda each: order.index(each.level))
    ]
    render.lines(rows)
    counts = [(sum(each.level == level for each in findings), level) for level in ("problem", "warning")]
    render.say(", ".join(counted(count, level) for count, level in counts if count) or "all is well")
