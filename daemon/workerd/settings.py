"""Every setting: its type, default, limits, aliases and help, in one place."""
# ruff: noqa: RUF009 - `setting` makes the field

from __future__ import annotations

import copy
import os
import re
import socket
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from workerd.kinds import FILLED, NAMES, NUMBER, PATH, SECONDS, SIZE, TEXT, YES, Kind, one_of
from workerd.setting import setting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workerd.setting import Setting


def _workers(value: Any) -> Any:
    is_auto = isinstance(value, str) and value.strip().lower() == "auto"
    return 2 * (os.cpu_count() or 1) if is_auto else NUMBER.read(value)


def _poll(value: Any) -> float:
    seconds: float = SECONDS.read(value)
    if seconds > 1000:
        raise ValueError(f"{seconds:g} s is too long, did you mean milliseconds? Write {seconds / 1000:g}")
    return seconds


def _addresses(value: str | None) -> None:
    for address in (value or "").split(","):
        if value and not re.match(r"https?://[^/\s]+", address.strip()):
            raise ValueError("has to be an address such as https://manager.example:8000")


def _dsn(value: str | None) -> None:
    if value and not re.fullmatch(r"https?://[^@/\s]+@[^@/\s]+/(?:\S*/)?\d+", value):
        raise ValueError("has to be an address such as https://key@sentry.example/42")


def _name(value: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", value):
        raise ValueError("has to be 1 to 64 letters, digits, '.', '_' or '-', the first a letter or a digit")


def _some(value: tuple[str, ...]) -> None:
    if not value:
        raise ValueError("has to name at least one")


DAY = 86400.0
WORKERS_MAX = 10000


def _home(variable: str, xdg: str, fallback: str) -> Path:
    """systemd's directory for the service, else XDG's."""
    given = os.environ.get(variable, "").split(":")[0]
    if given:
        return Path(given)
    base = os.environ.get(xdg)
    return (Path(base) if base else Path.home() / fallback) / "workerd"


def _state_dir() -> Path:
    return _home("STATE_DIRECTORY", "XDG_STATE_HOME", ".local/state")


def _runtime_dir() -> Path:
    if "RUNTIME_DIRECTORY" in os.environ or "XDG_RUNTIME_DIR" in os.environ:
        return _home("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "")
    return _state_dir() / "run"


def _log_dir() -> Path:
    given = os.environ.get("LOGS_DIRECTORY", "").split(":")[0]
    return Path(given) if given else _state_dir() / "log"


class WrongValues(ValueError):
    """Values that settings cannot have: what is allowed instead, by setting."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name.upper()}: {reason}" for name, reason in reasons.items()))
        self.reasons = reasons


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one daemon; also what `workerctl` needs to find it. Raises WrongValues.

    Every command reads them: the import and the models of pydantic would be most of what `workerctl status` does.
    """

    model_fields: ClassVar[dict[str, Setting]]

    database_url: str | None = setting(
        FILLED, None, "PostgreSQL to work on; without it an embedded one in STATE_DIR", secret=True
    )
    database_direct_url: str | None = setting(
        FILLED, None, "address for LISTEN and locks when DATABASE_URL is a transaction pooler", secret=True
    )
    database_pool_size: int = setting(NUMBER, 5, "connections for handlers", ge=1, le=1000)
    database_max_overflow: int = setting(NUMBER, 5, "further connections when those are busy", ge=0, le=1000)
    database_pool_timeout: float = setting(SECONDS, 30.0, "how long a handler waits for a connection", gt=0)
    tasks: tuple[str, ...] = setting(NAMES, ("invoices",), "modules that declare tasks, comma separated", check=_some)
    app_dir: Path = setting(PATH, Path.cwd, "directory put on the import path")
    workers: int = setting(
        Kind("number", _workers),
        2,
        "number of workers, or auto: twice the cores",
        "WORKER_COUNT",
        "WORKER_POOL_SIZE",
        "MAX_CONCURRENT_JOBS",
        in_place=True,
        ge=1,
        le=WORKERS_MAX,
    )
    concurrent_jobs: int = setting(
        NUMBER, 1, "jobs that each worker runs at a time", "MAX_CONCURRENT_TASKS", ge=1, le=1000
    )
    queues: tuple[str, ...] = setting(NAMES, (), "queues to serve, comma separated; empty: all", "QUEUE_NAME")
    name: str = setting(TEXT, "worker", "name of the daemon on this host", "WORKER_NAME", check=_name)
    node_name: str = setting(TEXT, "", "name of the node; empty: the host's name, with NAME unless that is `worker`")
    node_id: int | None = setting(NUMBER, None, "id of the node; generated unless given", "WORKER_ID", ge=1, lt=2**63)
    poll_interval: float = setting(
        Kind("duration", _poll),
        5.0,
        "how often to look for jobs that no notification announced",
        "TASK_POLL_INTERVAL",
        ge=0.01,
    )
    heartbeat_interval: float = setting(SECONDS, 5.0, "how often the node says that it lives", ge=0.1, le=3600)
    stall_limit: float = setting(
        SECONDS,
        60.0,
        "how long the main loop may stand still; past it the process ends, for its supervisor to start it again",
        ge=1,
    )
    claim_batch: int | None = setting(
        NUMBER, None, "jobs claimed at a time at most; by itself unless given", ge=1, le=500
    )
    max_retries: int = setting(
        NUMBER,
        3,
        "retries after the first attempt, unless the task says otherwise",
        "MAX_RETRY_ATTEMPTS",
        "RQ_JOB_RETRY_MAX",
        ge=0,
        le=32767,
    )
    retry_delay: float = setting(
        SECONDS,
        60.0,
        "wait before the first retry, doubled for each further one up to 1 h",
        "RQ_JOB_RETRY_DELAY",
        milliseconds=("ERROR_RETRY_DELAY",),
    )
    job_timeout: float = setting(SECONDS, 1800.0, "how long a job may run", milliseconds=("TASK_TIMEOUT_MS",), gt=0)
    drain_timeout: float = setting(SECONDS, 30.0, "how long a stopping daemon waits for running jobs", in_place=True)
    result_ttl: float = setting(SECONDS, 7 * DAY, "how long a succeeded job is kept; 0: not at all", "TASK_TTL_SECONDS")
    failure_ttl: float = setting(SECONDS, 30 * DAY, "how long a failed or cancelled job is kept", gt=0)
    progress_interval: float = setting(
        SECONDS,
        2.0,
        "progress of a job is written at most this often",
        milliseconds=("PROGRESS_UPDATE_INTERVAL_MS",),
        ge=0.05,
    )
    max_memory: int | None = setting(
        SIZE,
        None,
        "resident memory past which the daemon hands over to a fresh process",
        in_place=True,
        ge=32 * 1024**2,
    )
    max_jobs: int | None = setting(
        NUMBER, None, "jobs after which the daemon hands over to a fresh process", in_place=True, ge=1
    )
    max_crashes: int = setting(NUMBER, 3, "deaths of its node after which a job is failed", ge=1, le=100)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting(
        one_of("DEBUG", "INFO", "WARNING", "ERROR", read=str.upper),
        "INFO",
        "DEBUG, INFO, WARNING or ERROR",
        in_place=True,
    )
    log_format: Literal["console", "json"] | None = setting(
        one_of("console", "json"), None, "console or json; by itself: console on a terminal, else json"
    )
    log_file: Path | None = setting(PATH, None, "log file; empty: LOG_DIR/NAME.log")
    error_log_file: Path | None = setting(PATH, None, "log file for warnings and errors; empty: LOG_DIR/NAME.error.log")
    log_max_size: int = setting(SIZE, 20 * 1024**2, "size at which a log file is rotated; 0: never")
    log_keep: int = setting(NUMBER, 10, "rotated log files to keep", ge=0, le=1000)
    log_jobs: Literal["all", "slow", "failures"] | None = setting(
        one_of("all", "slow", "failures"),
        None,
        "which finished jobs are logged; by itself: all below 100 jobs/s, else slow ones",
    )
    log_stderr: bool = setting(YES, True, "whether a daemon in the foreground writes its log to standard error too")
    monitor: float | None = setting(SECONDS, None, "how often the daemon logs its own figures", in_place=True, gt=0)
    enable_metrics: bool = setting(YES, False, "serve Prometheus metrics")
    metrics_port: int = setting(NUMBER, 9090, "port of the metrics; 0 picks one", ge=0, le=65535)
    metrics_host: str = setting(TEXT, "127.0.0.1", "address on which the metrics are served")
    manager_url: str | None = setting(
        FILLED,
        None,
        "manager to work through, for a node without database access; several, comma separated: whichever answers",
        "SERVER_URL",
        check=_addresses,
    )
    manager_host: str = setting(TEXT, "127.0.0.1", "address on which the manager listens")
    manager_port: int = setting(NUMBER, 8000, "port on which the manager listens", ge=1, le=65535)
    api_token: str | None = setting(FILLED, None, "token for the manager", secret=True)
    sentry_dsn: str | None = setting(
        FILLED, None, "where errors are reported, https://key@host/project", secret=True, check=_dsn
    )
    openai_api_key: str | None = setting(TEXT, None, "invoice assistant: key of the chat endpoint", secret=True)
    openai_api_base: str | None = setting(
        TEXT, None, "invoice assistant: address of an OpenAI-compatible chat endpoint"
    )
    mineru_api_token: str | None = setting(TEXT, None, "invoice assistant: token of the MinerU API", secret=True)
    smtp_url: str | None = setting(
        TEXT, None, "invoice assistant: mail server, smtp://user:password@host:port", secret=True
    )
    webhook_url: str | None = setting(TEXT, None, "invoice assistant: where notifications are posted", secret=True)
    attachments_dir: Path | None = setting(
        PATH, None, "invoice assistant: where attachments are stored; empty: STATE_DIR/attachments"
    )
    state_dir: Path = setting(PATH, _state_dir, "where the embedded database and other state live")
    runtime_dir: Path = setting(PATH, _runtime_dir, "where the PID file and the control socket live")
    log_dir: Path = setting(PATH, _log_dir, "where the log files live")

    def __post_init__(self) -> None:
        wrong = {}
        for name, each in self.model_fields.items():
            try:
                object.__setattr__(self, name, each.value(getattr(self, name)))
            except ValueError as error:
                wrong[name] = str(error)
        if wrong:
            raise WrongValues(wrong)

    def model_copy(self, *, update: Mapping[str, Any]) -> Settings:
        """The same with other values, which are not looked at."""
        made = copy.copy(self)
        vars(made).update(update)
        return made

    @property
    def uses_embedded(self) -> bool:
        """Whether the database is the embedded one."""
        return self.database_url is None and self.manager_url is None

    @property
    def pid_file(self) -> Path:
        return self.runtime_dir / f"{self.name}.pid"

    @property
    def socket_path(self) -> Path:
        return self.runtime_dir / f"{self.name}.sock"

    @property
    def log_path(self) -> Path:
        return self.log_file or self.log_dir / f"{self.name}.log"

    @property
    def error_log_path(self) -> Path:
        return self.error_log_file or self.log_dir / f"{self.name}.error.log"

    @property
    def node(self) -> str:
        """The node's name: NODE_NAME, else the host's name, with the daemon's unless that is the default."""
        if self.node_name:
            return self.node_name
        host = socket.gethostname()
        return host if self.name == "worker" else f"{host}-{self.name}"


Settings.model_fields = {each.name: each.metadata["setting"] for each in fields(Settings)}
