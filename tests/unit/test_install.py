"""The files that `workerctl install` writes: what lies in the project, adapted to an installation."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from dotenv import dotenv_values

from tests.support import ROOT
from workerctl.commands import install
from workerctl.install import env_file, systemd
from workerctl.install.docker import Docker
from workerctl.install.pm2 import Pm2
from workerctl.install.supervisor import Supervisor
from workerctl.install.target import File, closed_to_others
from workerd import config
from workerd.daemon import journal, verbs
from workerd.daemon.handover.launch import Launch
from workerd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.usefixtures("directory")


def unit(flags: Mapping[str, str] = {}, name: str = "invoice-worker.service") -> str:
    """A unit as it is written."""
    return next(file.text for file in systemd.Systemd(config.load(flags, environ={})).files() if file.path.name == name)


def lines(name: str) -> list[str]:
    return (ROOT / "systemd" / name).read_text().splitlines()


def test_an_instance_differs_from_the_single_daemon_in_what_its_name_marks() -> None:
    single, instance = lines("invoice-worker.service")[1:], lines("invoice-worker@.service")[2:]
    assert set(single) - set(instance) == {
        "Description=Invoice worker",
        "Environment=WORKERD_NAME=worker",
        "RuntimeDirectory=invoice-worker/worker",
        "WantedBy=multi-user.target",
    }
    own = set(instance) - set(single)
    assert own - {"PartOf=invoice-worker.target", "WantedBy=invoice-worker.target"} == {
        "Description=Invoice worker %i",
        "Environment=WORKERD_NAME=%i",
        "RuntimeDirectory=invoice-worker/%i",
        "EnvironmentFile=-/etc/invoice-worker/%i.env",
    }


def test_a_unit_runs_this_interpreter_by_the_name_it_was_called_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/srv/a b/100%/bin/python")
    text = unit()
    assert 'ExecStart="/srv/a b/100%%/bin/python" -m workerd\n' in text
    assert "/opt/worker" not in text


def test_a_unit_gives_the_drain_its_time_and_the_watchdog_less_than_the_stall_limit() -> None:
    assert {"TimeoutStopSec=60s", "WatchdogSec=30s"} <= set(unit().splitlines())
    given = unit({"drain_timeout": "5m", "stall_limit": "20s"}).splitlines()
    assert {"TimeoutStopSec=330s", "WatchdogSec=10s"} <= set(given)


@pytest.mark.parametrize(("place", "protection"), [("/home/me/app", "read-only"), ("/homes/app", "yes")])
def test_homes_are_hidden_unless_the_application_lies_in_one(
    monkeypatch: pytest.MonkeyPatch, place: str, protection: str
) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/worker/bin/python")
    assert f"ProtectHome={protection}\n" in unit({"app_dir": place})


def test_the_delay_of_restarts_rises_where_systemd_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_version", lambda: 252)
    assert "RestartSteps" not in unit()
    monkeypatch.setattr(systemd, "_version", lambda: 254)
    assert "RestartSec=2s\nRestartSteps=5\nRestartMaxDelaySec=60s\n" in unit()


def test_the_environment_file_has_what_was_given_and_reads_back_the_same(tmp_path: Path) -> None:
    url = 'postgresql://app:a"b c\\d#e$f@db/shop'
    given = config.load({"database_url": url, "queues": "a,b", "drain_timeout": "2m", "name": "x"}, environ={})
    text = env_file.filled("# head\n#DATABASE_URL=\nWORKERS=2\n", env_file.entries(given))
    (tmp_path / "worker.env").write_text(text)
    assert dotenv_values(tmp_path / "worker.env") == {
        "DATABASE_URL": url,
        "WORKERS": "2",
        "QUEUES": "a,b",
        "DRAIN_TIMEOUT": "120",
    }
    assert 'a"b' not in env_file.without_secrets(text)
    assert (
        env_file.without_secrets("DATABASE_URL=postgresql://a:hunter22@db/b\n")
        == "DATABASE_URL=postgresql://a:********@db/b\n"
    )


def test_a_file_that_differs_by_a_secret_alone_is_seen_to_differ(tmp_path: Path) -> None:
    there = tmp_path / "worker.env"
    there.write_text("API_TOKEN=first\n")
    assert File(there, "API_TOKEN=first\n", shown=env_file.without_secrets).diff() == ""
    assert "a secret differs" in File(there, "API_TOKEN=second\n", shown=env_file.without_secrets).diff()


def test_a_file_is_written_whole_with_its_mode_and_what_takes_it_in_is_run(tmp_path: Path) -> None:
    file = File(
        tmp_path / "etc" / "worker.env", "X=1\n", 0o640, then=("cp", str(tmp_path / "etc/worker.env"), str(tmp_path))
    )
    file.write()
    assert file.path.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "worker.env").read_text() == "X=1\n"
    assert [each.name for each in file.path.parent.iterdir()] == ["worker.env"]


def test_every_line_in_the_journal_has_its_priority() -> None:
    graded = journal.Graded(logging.Formatter("%(message)s"))
    record = logging.LogRecord("x", logging.WARNING, __file__, 1, "first\nsecond", (), None)
    assert graded.format(record) == "<4>first\n<4>second"


def test_the_environment_of_now_is_taken_from_the_unit_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVOCATION_ID", "ours")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setattr("os.getuid", lambda: 7)
    given = {"INVOCATION_ID": "ours", "WORKERS": "3"}
    assert verbs.environment_of_now({"uid": 7, "environment": given}) == given
    assert verbs.environment_of_now({"uid": 8, "environment": given}) is None
    assert verbs.environment_of_now({"uid": 7, "environment": {**given, "INVOCATION_ID": "theirs"}}) is None
    assert verbs.environment_of_now({"uid": 7}) is None
    monkeypatch.setenv("WORKERD_BACKGROUND", "1")  # `workerctl start` in a shell that is part of some unit
    assert verbs.environment_of_now({"uid": 7, "environment": given}) is None


def test_a_renewed_launch_keeps_what_belongs_to_the_main_process() -> None:
    ours = {"NOTIFY_SOCKET": "/run/ours", "CREDENTIALS_DIRECTORY": "/run/credentials", "WORKERS": "2", "OLD": "1"}
    launch = Launch([], lambda: config.load(environ={}), ours, Path("/"))
    renewed = launch.renewed({"NOTIFY_SOCKET": "/run/theirs", "MAINPID": "5", "WORKERS": "3"})
    assert renewed.environment == {
        "NOTIFY_SOCKET": "/run/ours",
        "CREDENTIALS_DIRECTORY": "/run/credentials",
        "WORKERS": "3",
    }


def kept(name: str, folder: Path, flags: Mapping[str, str] = {}) -> dict[str, str]:
    """The files for supervisor or pm2, by their names."""
    target = {"supervisor": Supervisor, "pm2": Pm2}[name](config.load(flags, environ={}), folder)
    return {file.path.name: file.text for file in target.files()}


def test_the_start_script_runs_this_interpreter_whatever_folder_and_environment_it_is_called_with(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "files of one"
    for file in Pm2(config.load({"name": "mail"}, environ={}), folder).files():
        file.write()
    done = subprocess.run([folder / "mail-start.sh", "--version"], cwd="/", env={}, capture_output=True, text=True)
    assert (done.stdout.split()[0], done.stderr) == ("workerd", "")
    assert (folder / "mail.env").stat().st_mode & 0o777 == 0o640


def test_the_settings_file_says_where_the_daemon_lies_for_whoever_starts_it(tmp_path: Path) -> None:
    places = {"app_dir": "/srv/app", "state_dir": "/srv/state", "log_dir": "/srv/log", "name": "mail"}
    settings = tmp_path / "mail.env"
    settings.write_text(kept("pm2", tmp_path, {**places, "workers": "3"})["mail.env"])
    there = config.load(file=settings, environ={"XDG_RUNTIME_DIR": "/run/user/7"}).settings
    assert (there.name, there.workers, there.log_stderr) == ("mail", 3, False)
    assert (str(there.app_dir), str(there.state_dir), str(there.log_dir)) == ("/srv/app", "/srv/state", "/srv/log")
    assert not str(there.runtime_dir).startswith("/run/user")
    settings.write_text(settings.read_text().replace("WORKERS=3", "WORKERS=4"))
    again = kept("pm2", tmp_path, {"name": "mail", "tasks": "a"})["mail.env"]
    assert {"WORKERS=4", "TASKS=a", "STATE_DIR=/srv/state"} <= set(again.splitlines())


def test_supervisor_and_pm2_give_the_drain_its_time(tmp_path: Path) -> None:
    given = {"name": "mail", "drain_timeout": "5m", "app_dir": "/srv/100% app"}
    conf = kept("supervisor", tmp_path, given)["mail.conf"].splitlines()
    assert {"[program:mail]", "stopwaitsecs=330", "directory=/srv/100%% app"} <= set(conf)
    script = kept("pm2", tmp_path, given)["mail.config.js"]
    assert '      name: "mail",' in script
    assert '      cwd: "/srv/100% app",' in script
    assert "      kill_timeout: 330000," in script


def test_a_folder_is_for_what_has_no_places_of_the_host() -> None:
    with pytest.raises(ConfigError, match="--to is for others"):
        install._target("systemd", Path("/srv"))


def test_a_closed_folder_is_found_where_a_link_leads(tmp_path: Path) -> None:
    closed, link = tmp_path / "closed", tmp_path / "link"
    closed.mkdir(mode=0o700)
    link.symlink_to(closed / "python")
    assert closed_to_others(link) == next(
        each for each in (*reversed(tmp_path.parents), tmp_path, closed) if not each.stat().st_mode & 1
    )


def test_the_services_of_docker_have_all_that_they_mount_and_need_no_sources(tmp_path: Path) -> None:
    given = {"database_url": "postgresql://app:secret@db/shop", "drain_timeout": "2m", "log_file": "/var/log/x"}
    target = Docker(config.load(given, environ={}), tmp_path)
    target.image = "registry/worker:1"
    for file in target.files():
        file.write()
    services = yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"]
    assert [name for name, service in services.items() if "build" in service] == []
    mounts = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", [])]
    assert [mount for mount in mounts if mount.startswith("./") and not (tmp_path / mount).exists()] == []
    assert (tmp_path / "postgres/start.sh").stat().st_mode & 0o111
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert services["worker"]["env_file"] == [{"path": ".env", "required": False}]
    assert dotenv_values(tmp_path / ".env") == {
        "COMPOSE_PROJECT_NAME": "worker",
        "WORKER_IMAGE": "registry/worker:1",
        "STOP_GRACE_PERIOD": "140s",
        "DATABASE_URL": "postgresql://app:secret@db/shop",
        "DRAIN_TIMEOUT": "120",
    }


def test_a_value_that_compose_would_change_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"DATABASE_URL has a \$"):
        Docker(config.load({"database_url": "postgresql://app:a$b@db/shop"}, environ={}), tmp_path).files()
