"""The jobs around one that wait for each other, as trees: below each job those that wait for it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.tree import Tree


def trees(graph: dict[str, Any], job_id: int) -> list[Tree]:
    """A tree for each job that waits for no other; one that waits for several is drawn with what follows where it comes first."""
    from rich.tree import Tree

    children = defaultdict[int, list[int]](list)
    for parent, child in graph["edges"]:
        children[parent].append(child)
    drawn: set[int] = set()

    known = {job["id"]: f"{job['task']} {job['state']}" for job in graph["jobs"]}

    def label(job: int) -> str:
        what = f"{job} {known.get(job, 'is not kept')}"
        return f"→ {what}" if job == job_id else what

    def grow(tree: Tree, job: int) -> None:
        for child in sorted(children[job]):
            again = child in drawn
            drawn.add(child)
            branch = tree.add(f"{label(child)} …" if again and children[child] else label(child))
            if not again:
                grow(branch, child)

    waiting = {child for _, child in graph["edges"]}
    roots = []
    for job in sorted({parent for parent, _ in graph["edges"]} - waiting):
        root = Tree(label(job))
        grow(root, job)
        roots.append(root)
    return roots
