"""The client of the daemon's control socket."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from workerd.errors import NotRunning, WorkerdError

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT = 5.0  # seconds; a daemon that answers later than that what it has at hand is not healthy


def ask(path: Path, verb: str, *, limit: float = TIMEOUT, **arguments: Any) -> dict[str, Any]:
    """Ask the daemon at this socket; `limit` is seconds.

    Raises NotRunning when nobody listens, WorkerdError when it refuses or does not answer.
    """
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(limit)
            client.connect(str(path))
            client.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
            answer = json.loads(client.makefile("rb").readline())
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunning(f"no daemon listens on {path} (start one with `workerctl start`)") from None
    except PermissionError:
        raise WorkerdError(f"you may not use {path}: be root, the daemon's user, or a member of its group") from None
    except (OSError, ValueError) as error:
        raise WorkerdError(
            f"the daemon at {path} does not answer ({error}): it may still do it; SIGUSR1 writes its stacks to the log"
        ) from error
    if not answer["ok"]:
        raise WorkerdError(answer["error"])
    data: dict[str, Any] = answer["data"]
    return data
