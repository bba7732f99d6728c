"""A daemon that a program of the user's keeps running: its settings file, and the script that starts it from anywhere."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from workerctl.install import env_file, packed
from workerctl.install.target import STOP_MARGIN, File, Target, closed_to_others
from workerd import config, embedded
from workerd.daemon import pidfile
from workerd.errors import WorkerdError

FILES = "ops/supervisors"  # as they lie


class Kept(Target):
    """What supervisor and pm2 have in common; `keeper` is the command by which one tells it what to do."""

    is_system = False
    keeper: ClassVar[str]
    package: ClassVar[str]  # how to get it

    @property
    def folder(self) -> Path:
        """Where the files are written."""
        return self.to or (Path("/etc/workerd") if os.geteuid() == 0 else _config_home() / "workerd")

    @property
    def settings_file(self) -> Path:
        return self.folder / f"{self.settings.name}.env"

    @property
    def script(self) -> Path:
        return self.folder / f"{self.settings.name}-start.sh"

    @property
    def directory(self) -> Path:
        return self.settings.app_dir.absolute()

    @cached_property
    def user(self) -> pwd.struct_passwd:
        """Whom the daemon runs as."""
        return pwd.getpwuid(os.geteuid())

    @property
    def patience(self) -> float:
        """Seconds from the order to stop until it is killed."""
        return self.settings.drain_timeout + STOP_MARGIN

    def files(self) -> list[File]:
        group = self.user.pw_gid if os.geteuid() == 0 else None
        return [
            File(self.settings_file, self._settings_text(), 0o640, group, shown=env_file.without_secrets),
            File(self.script, self._script_text(), 0o755),
            self._own_file(),
        ]

    @abstractmethod
    def _own_file(self) -> File:
        """The one that the keeper reads."""

    def warnings(self) -> list[str]:
        found = []
        if shutil.which(self.keeper) is None:
            found.append(f"there is no {self.keeper} here: {self.package}")
        if self.user.pw_uid == 0:
            found.append("it will run as root: give the application's folder to a user (chown) and install again")
        elif os.geteuid() == 0:
            found += [
                f"{self.user.pw_name} cannot read {path}: {folder} is closed to others. Move it, or `chmod o+x {folder}`"
                for path in (Path(sys.executable), self.directory)
                if (folder := closed_to_others(path)) is not None
            ]
        return found

    def remove(self) -> list[str]:
        data: list[Path] = []
        self._stop()
        if self.settings_file.exists():
            there = config.load(file=self.settings_file, environ={}).settings
            pid = pidfile.owner(there.pid_file)
            if pid is not None:
                raise WorkerdError(
                    f"{there.name} (PID {pid}) still runs, nothing was removed: stop it where its {self.name} can be reached, then again"
                )
            if there.uses_embedded:
                embedded.stop_if_unused(there.state_dir)
            data = [there.state_dir, there.log_dir]
        for file in (self.settings_file, self.script, *self._own_places()):
            file.unlink(missing_ok=True)
        self._forget()
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        return [str(folder) for folder in dict.fromkeys(data) if folder.exists()]

    @abstractmethod
    def _stop(self) -> None:
        """Let the keeper stop it."""

    @abstractmethod
    def _own_places(self) -> list[Path]:
        """Where a file for the keeper may lie."""

    @abstractmethod
    def _forget(self) -> None:
        """Let the keeper see that its file has gone."""

    def tell(self, *words: str) -> None:
        """Tell the keeper; where it does not run there is nothing to be told."""
        with contextlib.suppress(FileNotFoundError):
            subprocess.run([self.keeper, *words], check=False, capture_output=True)

    def _settings_text(self) -> str:
        """The file that lies there, which is the operator's, with the settings that are given now; else a new one."""
        given = env_file.entries(self.configuration)
        there = self.settings_file.exists()
        places = self._places()
        given |= {key: value for key, value in places.items() if not there or self._is_given(key.lower())}
        text = self.settings_file.read_text(encoding="utf-8") if there else packed.text(f"{FILES}/worker.env")
        return env_file.filled(text, given)

    def _places(self) -> dict[str, str]:
        """Where this daemon lies, said outright: whoever starts it may have another home, or none."""
        settings, mine = self.settings, self.user.pw_uid == os.geteuid()
        home = (
            settings.state_dir
            if mine or self._is_given("state_dir")
            else Path(self.user.pw_dir) / ".local/state/workerd"
        )
        run = settings.runtime_dir if self._is_given("runtime_dir") else home / "run"  # that of a login goes with it
        log = settings.log_dir if self._is_given("log_dir") else home / "log"
        places = {"STATE_DIR": home, "RUNTIME_DIR": run, "LOG_DIR": log, "APP_DIR": settings.app_dir}
        return {"NAME": settings.name, **{key: str(path.absolute()) for key, path in places.items()}}

    def _is_given(self, setting: str) -> bool:
        return self.configuration.sources[setting] != "default"

    def _script_text(self) -> str:
        text = packed.text(f"{FILES}/start.sh")
        for there, here in (
            ("/opt/shop", self.directory),
            (
                "/opt/worker/bin/python",
                Path(sys.executable),
            ),  # as it was called: a link may be what makes it the environment's
            ("/etc/workerd/worker.env", self.settings_file),
        ):
            text = text.replace(there, shlex.quote(str(here)))
        if path := os.environ.get("PYTHONPATH"):
            absolute = os.pathsep.join(str(Path(each).absolute()) for each in path.split(os.pathsep) if each)
            text = with_line(text, "(?=cd )", f"export PYTHONPATH={shlex.quote(absolute)}\n")
        return text


def with_line(text: str, pattern: str, line: str) -> str:
    """The text with this in place of what begins a line and matches."""
    return re.sub(rf"(?m)^{pattern}", lambda _: line, text)


def _config_home() -> Path:
    given = os.environ.get("XDG_CONFIG_HOME")
    return Path(given) if given else Path.home() / ".config"
