"""How one job is shown to people."""

from __future__ import annotations

from typing import Any

from workerctl import render
from workerctl.commands import job_graph

LAST_LINES = 10  # of what a job has logged


def show(job: dict[str, Any]) -> None:
    """For people: what it is, its attempts in a line each, why the last one failed, what it has logged last."""
    hidden = ("attempts", "error", "message", "steps", "log", "graph")
    render.details(
        f"job {job['id']}",
        [(name, _text(value)) for name, value in job.items() if name not in hidden and value is not None],
    )
    rows = [
        (
            a["attempt"],
            a["node"],
            render.clock(a["started_at"]),
            render.clock(a["ended_at"]),
            a["outcome"],
            render.first_line(a["error"]),
        )
        for a in job["attempts"]
    ]
    render.table("attempts", ("attempt", "node", "started", "ended", "outcome", "error"), rows)
    if job["steps"]:
        steps = [(step["name"], render.clock(step["at"]), _text(step["result"])) for step in job["steps"]]
        render.table("steps", ("step", "done", "result"), steps, cut=True)
    if job["graph"]["edges"]:
        render.say("\njobs that wait for each other:")
        render.tree(job_graph.trees(job["graph"], job["id"]))
    said = next((a for a in reversed(job["attempts"]) if a["error"]), None)
    if said is not None and "\n" in said["error"]:
        render.say(f"\nattempt {said['attempt']}:\n{said['error'].partition(chr(10))[2].rstrip()}")
    lines = job["log"]
    if lines:
        render.say(f"\nlogged ({len(lines)} lines, all of them: workerctl logs --job {job['id']}):")
        for line in lines[-LAST_LINES:]:
            render.say(f"{render.brief(line['at'])} #{line['attempt']} {line['level'].upper():<8}{line['message']}")


def _text(value: object) -> str:
    from workerd import codec

    return codec.dumps(value, "a value") if isinstance(value, (dict, list)) else str(value)
