"""The benchmark."""

from __future__ import annotations

from typing import Annotated

import typer

from workerctl import context, render


def bench(
    repeat: Annotated[int, typer.Option(min=1, max=1000, help="How often everything is measured.")] = 3,
    jobs: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="Size of a short drain; long ones are six times that.")
    ] = 20_000,
    only: Annotated[
        str | None,
        typer.Option(help="drain, fleet, snapshot, enqueue, latency, backlog; comma separated; all with --peers."),
    ] = None,
    peers: Annotated[
        bool, typer.Option("--peers", help="Beside other systems, installed into the user's cache.")
    ] = False,
    peer: Annotated[list[str] | None, typer.Option(help="Beside this one of them; may be repeated.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="For documents.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Measure drain, enqueue and latency on a database of its own: on the server of DATABASE_URL, else on an embedded one.

    Example: workerctl bench --repeat 5 --markdown
    """
    import sys

    from workerctl.bench import suite
    from workerctl.bench.peers.catalogue import PEERS

    if markdown and as_json:
        raise typer.BadParameter("--markdown and --json exclude each other")
    usual = list(suite.SUITE) if peers else suite.USUAL
    names = [name.strip() for name in only.split(",")] if only is not None else usual
    if unknown := [name for name in names if name not in suite.SUITE]:
        raise typer.BadParameter(f"--only {', '.join(unknown)}: there are {', '.join(suite.SUITE)}")
    named = {name.lower().replace("-", "_"): name for name in peer or ()}
    if strange := [name for key, name in named.items() if key not in {one.name for one in PEERS}]:
        raise typer.BadParameter(f"--peer {', '.join(strange)}: there are {', '.join(one.title for one in PEERS)}")
    beside = [one for one in PEERS if one.name in named or (peers and not named)]
    tell = render.warn if sys.stderr.isatty() else lambda _: None
    report = context.run(suite.run(context.settings(), names, repeat, jobs, beside, tell))
    if as_json:
        render.json(report.value())
    elif markdown:
        render.say(report.markdown())
    else:
        report.show()
