"""Work on a file of unknown origin in a process of its own, with limits: it can neither block nor bring down the daemon."""

from __future__ import annotations

import json
import resource
import sys
from typing import TYPE_CHECKING, Any

from invoices.invoice import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_MEMORY = 2 * 1024**3  # bytes of address space
MAX_CPU = 120  # seconds
LIMIT = 300  # seconds


async def run(module: str, path: Path) -> dict[str, Any]:
    """The answer of `python -m module PATH`. Raises Unreadable with the reason."""
    import asyncio  # which the child does without

    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        str(path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(LIMIT):
            out, _ = await child.communicate()
    except TimeoutError:
        raise Unreadable(f"it was not read within {LIMIT} s") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit {child.returncode}"
        raise Unreadable(
            f"the program that reads it was ended by its limits ({how}): the file is damaged or made to be hard to read"
        )
    told: dict[str, Any] = json.loads(out)
    if "error" in told:
        raise Unreadable(told["error"])
    return told


def serve(work: Callable[[str], dict[str, Any]]) -> None:
    """The child's side: print what `work` makes of the path, or {"error": why}."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU, MAX_CPU))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        told = work(sys.argv[1])
    except Unreadable as error:
        told = {"error": str(error)}
    except (MemoryError, RecursionError) as error:
        told = {"error": f"reading it takes more memory than is allowed ({type(error).__name__})"}
    except ModuleNotFoundError as error:
        told = {"error": f"reading it needs {error.name}: pip install 'workerd[invoices]'"}
    json.dump(told, sys.stdout)
