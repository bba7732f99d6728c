"""The worker's image, built as docs/docker.md does it: with a private index of packages where no registry is reached."""

from __future__ import annotations

import contextlib
import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.system.docker.stack import Stack
from tests.system.wheels import wheels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.docker.engine import Engine

PYTHON = "/usr/bin/python3"  # the one that the base's stand-in has too


def build(engine: Engine, variables: dict[str, str], *words: str) -> None:
    """Build it from the working tree."""
    if not engine.stand_ins:
        Stack(engine, "workerd-test", variables).compose("build", "--quiet", *words, "worker")
        return
    with TemporaryDirectory() as folder, served(wheels(PYTHON)) as address:
        configuration = Path(folder) / "pip.conf"
        configuration.write_text(f"[global]\nno-index = true\nfind-links = {address}\n")
        given = {**variables, "PIP_CONF": str(configuration)}
        overlay = "tests/system/docker/private_index.yaml"
        Stack(engine, "workerd-test", given, overlay=overlay).compose("build", "--quiet", *words, "worker")


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder by HTTP; the address."""
    handler = functools.partial(Silent, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, name="packages", daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
