"""Where settings come from, and which source counts."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

import pytest

from workerd import config
from workerd.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("directory")


def parsed(*words: str) -> dict[str, str]:
    parser = argparse.ArgumentParser()
    config.add_flags(parser)
    return config.flags_of(parser.parse_args(words))


def test_the_strongest_source_counts_flag_environment_file_default(directory: Path) -> None:
    strongest_first = [
        ("flag", "workers", "--workers"),
        ("environment", "WORKERD_WORKERS", "WORKERD_WORKERS in the environment"),
        ("environment", "WORKERS", "WORKERS in the environment"),
        ("environment", "WORKER_COUNT", "WORKER_COUNT in the environment"),
        ("file", "WORKERD_WORKERS", "WORKERD_WORKERS in .env"),
        ("file", "WORKERS", "WORKERS in .env"),
        ("file", "WORKER_COUNT", "WORKER_COUNT in .env"),
    ]
    for dropped in range(len(strongest_first)):
        layers: dict[str, dict[str, str]] = {"flag": {}, "environment": {}, "file": {}}
        for place, (layer, key, _) in enumerate(strongest_first[dropped:], start=dropped + 10):
            layers[layer][key] = str(place)
        (directory / ".env").write_text("".join(f"{key}={value}\n" for key, value in layers["file"].items()))
        loaded = config.load(layers["flag"], environ=layers["environment"])
        assert (loaded.settings.workers, loaded.sources["workers"]) == (dropped + 10, strongest_first[dropped][2])
    (directory / ".env").unlink()
    loaded = config.load(environ={})
    assert (loaded.settings.workers, loaded.sources["workers"]) == (2, "default")


@pytest.mark.parametrize(
    ("alias", "text", "name", "value"),
    [
        ("WORKER_COUNT", "7", "workers", 7),
        ("WORKER_POOL_SIZE", "7", "workers", 7),
        ("MAX_CONCURRENT_JOBS", "7", "workers", 7),
        ("MAX_CONCURRENT_TASKS", "7", "concurrent_jobs", 7),
        ("QUEUE_NAME", "mail,reports", "queues", ("mail", "reports")),
        ("WORKER_NAME", "seven", "name", "seven"),
        ("WORKER_ID", "7", "node_id", 7),
        ("TASK_POLL_INTERVAL", "7", "poll_interval", 7.0),
        ("MAX_RETRY_ATTEMPTS", "7", "max_retries", 7),
        ("RQ_JOB_RETRY_MAX", "7", "max_retries", 7),
        ("RQ_JOB_RETRY_DELAY", "7", "retry_delay", 7.0),
        ("TASK_TTL_SECONDS", "7", "result_ttl", 7.0),
        ("SERVER_URL", "https://manager.example", "manager_url", "https://manager.example"),
        # these are in milliseconds, unless they have a unit
        ("ERROR_RETRY_DELAY", "7000", "retry_delay", 7.0),
        ("ERROR_RETRY_DELAY", "1000000000", "retry_delay", 1_000_000.0),
        ("ERROR_RETRY_DELAY", "1234567", "retry_delay", 1234.567),
        ("ERROR_RETRY_DELAY", "7s", "retry_delay", 7.0),
        ("TASK_TIMEOUT_MS", "60000", "job_timeout", 60.0),
        ("TASK_TIMEOUT_MS", "1500.5", "job_timeout", 1.5005),
        ("PROGRESS_UPDATE_INTERVAL_MS", " 250 ", "progress_interval", 0.25),
    ],
)
def test_an_alias_sets_its_setting_in_file_and_flag_alike(
    directory: Path, alias: str, text: str, name: str, value: object
) -> None:
    (directory / ".env").write_text(f"{alias}='{text}'\n")
    assert getattr(config.load(environ={}).settings, name) == value
    (directory / ".env").unlink()
    assert getattr(config.load({alias: text}, environ={}).settings, name) == value
    flag = f"--{alias.lower().replace('_', '-')}"
    assert getattr(config.load(parsed(flag, text), environ={}).settings, name) == value


def test_every_setting_and_alias_has_a_flag() -> None:
    for name in config.Settings.model_fields:
        for key in config.names(name):
            assert parsed(f"--{key.lower().replace('_', '-')}", "x") == {name: "x"}


def test_name_and_queue_name_of_the_environment_belong_to_others(directory: Path) -> None:
    loaded = config.load(environ={"NAME": "systemd", "QUEUE_NAME": "rabbit"})
    assert (loaded.settings.name, loaded.settings.queues) == ("worker", ())
    assert config.load(environ={"WORKERD_NAME": "mine"}).settings.name == "mine"
    assert config.load(environ={"WORKERD_QUEUES": "mine"}).settings.queues == ("mine",)
    assert config.load({"name": "mine"}, environ={}).settings.name == "mine"
    (directory / ".env").write_text("NAME=mine\nQUEUE_NAME=urgent\n")
    loaded = config.load(environ={"NAME": "systemd"})
    assert (loaded.settings.name, loaded.settings.queues) == ("mine", ("urgent",))


def test_keys_of_a_file_may_be_in_either_case(directory: Path) -> None:
    (directory / ".env").write_text("workers=3\nLOG_LEVEL=debug\nWorkerd_Max_Retries=9\n")
    settings = config.load(environ={}).settings
    assert (settings.workers, settings.log_level, settings.max_retries) == (3, "DEBUG", 9)


def test_a_named_file_replaces_the_one_of_the_directory(directory: Path) -> None:
    (directory / ".env").write_text("WORKERS=3\n")
    other = directory / "other.env"
    other.write_text("MAX_RETRIES=1\n")
    loaded = config.load(file=other, environ={})
    assert (loaded.settings.workers, loaded.settings.max_retries) == (2, 1)
    assert loaded.sources["max_retries"] == f"MAX_RETRIES in {other}"


def test_a_named_file_has_to_be_there_and_readable(directory: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.env does not exist"):
        config.load(file=directory / "missing.env", environ={})
    (directory / ".env").write_bytes(b"NAME=\xff\xfe\n")
    with pytest.raises(ConfigError, match=r"the settings file \.env cannot be read"):
        config.load(environ={})


def test_an_empty_value_is_none_except_in_a_flag() -> None:
    assert config.load(environ={"LOG_FORMAT": "", "WORKERS": ""}).settings.workers == 2
    assert config.load({"queues": ""}, environ={"QUEUES": "a"}).settings.queues == ()


def test_workers_auto_is_twice_the_cores() -> None:
    assert config.load({"workers": "auto"}, environ={}).settings.workers == 2 * (os.cpu_count() or 1)
