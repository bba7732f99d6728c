"""What a child asks while its handler runs: about a step of its job, or an answer from outside."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from workerd import codec
from workerd.error_text import message_of
from workerd.errors import LeaseLost, WorkerdError
from workerd.outcomes import Snooze

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.daemon.run import Run
    from workerd.job import Host


class _NotDone(Exception):
    """The step has to be done first."""


async def _not_done() -> NoReturn:
    raise _NotDone


async def _done(result: object) -> object:
    return result


async def answer(message: dict[str, Any], run: Run, host: Host) -> dict[str, Any]:
    """The daemon's answer. A failure of any kind is one, which the child raises in its handler."""
    if run.job is None or message["id"] != run.claimed.id:  # a thread that an earlier job has left behind
        return {"kind": "lost", "text": f"job {message['id']} is not run by this process any more"}
    try:
        match message["kind"]:
            case "step":
                found = await host.step(run.job, message["name"], _not_done)
            case "keep":
                found = await host.step(run.job, message["name"], partial(_done, codec.loads(message["text"])))
            case _:
                found = await host.wait_for(run.job, message["name"], message["timeout"])
        return {"kind": "found", "text": codec.dumps(found, "the answer")}
    except _NotDone:
        return {"kind": "not done"}
    except Snooze as error:
        return {"kind": "snooze", "text": str(error), "delay": error.delay}
    except TimeoutError as error:
        return {"kind": "timeout", "text": str(error)}
    except LeaseLost as error:
        return {"kind": "lost", "text": str(error)}
    except Exception as error:  # noqa: BLE001 - the database may have said anything, and the child is to go on with it
        return {"kind": "failed", "text": message_of(error)}


_RAISED: dict[str, Callable[[dict[str, Any]], Exception]] = {
    "snooze": lambda said: Snooze(said["delay"], said["text"]),
    "timeout": lambda said: TimeoutError(said["text"]),
    "lost": lambda said: LeaseLost(said["text"]),
    "failed": lambda said: WorkerdError(said["text"]),
}


def found(said: dict[str, Any]) -> Any:
    """In the child: what the daemon has found; raises what it says otherwise."""
    if said["kind"] in _RAISED:
        raise _RAISED[said["kind"]](said)
    return codec.loads(said["text"])
