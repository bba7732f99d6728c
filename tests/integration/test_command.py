"""A command that is forked is what a new interpreter makes of it: else the tests of the toolkit prove nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import command

if TYPE_CHECKING:
    from pathlib import Path

ODD = """
import atexit, os, signal, sys
atexit.register(lambda: print("at exit"))
print(__name__, sys.argv[1:], sys.path[0], os.getcwd(), sys.stdin.read(), sys.stdin.isatty(), sys.stdout.isatty())
print(sys.stdout.encoding, sys.stdout.line_buffering, sys.stderr.line_buffering, sys.flags, sys.executable)
print(sorted(os.environ.items()), sorted(name for name in sys.modules if name.startswith("tests")))
print([signal.getsignal(each) for each in (signal.SIGINT, signal.SIGCHLD, signal.SIGTERM)], len(os.listdir("/proc/self/fd")))
print("said", file=sys.stderr)
{end}
"""
ENDS = ("", "sys.exit(3)", "sys.exit('why')", "1 / 0", "os.kill(os.getpid(), signal.SIGTERM)", "os.close(1)")


@pytest.mark.parametrize("end", ENDS)
def test_it_differs_in_nothing_from_a_new_interpreter(tmp_path: Path, end: str) -> None:
    (tmp_path / "odd.py").write_text(ODD.format(end=end))
    env = {**os.environ, "SAID": "héllo"}
    forked = command.run(["odd", "a", "--b"], tmp_path, env, "giv\u00e9n")
    real = subprocess.run(
        [sys.executable, "-m", "odd", "a", "--b"],
        cwd=tmp_path,
        env=env,
        input="giv\u00e9n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (forked.returncode, forked.stdout) == (real.returncode, real.stdout)
    assert forked.stderr.splitlines()[::-1][:1] == real.stderr.splitlines()[::-1][:1]


def test_what_only_a_new_interpreter_heeds_gets_one(tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "workerctl.py").write_text("print('hides it')")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "hidden")}
    assert command.run(["workerctl"], tmp_path, env).stdout == "hides it\n"


async def test_many_run_side_by_side_and_what_they_leave_running_holds_nobody(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text(
        "import subprocess, sys\n"
        "left = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(sys.argv[1], left.pid)\n"
        "sys.exit(int(sys.argv[1]))\n"
    )
    told = await asyncio.gather(
        *(asyncio.to_thread(command.run, ["leaves", str(number)], tmp_path, os.environ) for number in range(8))
    )
    said = [done.stdout.split() for done in told]
    for _, pid in said:
        os.kill(int(pid), signal.SIGKILL)  # it lived
    assert [(done.returncode, int(number)) for done, (number, _) in zip(told, said, strict=True)] == [
        (number, number) for number in range(8)
    ]


def test_one_that_does_not_end_in_time_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text("import os, time, sys\nprint(os.getpid(), flush=True)\ntime.sleep(1000)\n")
    monkeypatch.setattr(command, "LIMIT", 0.2)
    with pytest.raises(subprocess.TimeoutExpired):
        command.run(["slow"], tmp_path, os.environ)
