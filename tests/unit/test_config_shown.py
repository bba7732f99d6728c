"""What is shown of settings, and what they are warned about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from workerd import config

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("directory")

FOREIGN = """
    DEBUG SECRET_KEY DATABASE_USER DATABASE_PASSWORD DATABASE_HOST DATABASE_NAME POSTGRES_PASSWORD REDIS_URL NODE_ENV
    HOST PORT SMTP_USER SMTP_HOST API_KEY APP_ENV APP_ID APP_KEY APP_URL SITE_URL TMP_DIR STATIC_DIR LOG_PATH LOG_KEY
    CELERY_BROKER_URL MAX_WORKERS JWT_SECRET TZ COMPOSE_PROJECT_NAME EMAIL_HOST_PASSWORD OPENAI_MODEL AWS_ACCESS_KEY_ID
"""
MISSPELT = [
    ("DATABASE_ULR", "DATABASE_URL"),
    ("DATABSE_URL", "DATABASE_URL"),
    ("DATABASE_URI", "DATABASE_URL"),
    ("WORKER", "WORKERS"),
    ("WORKRES", "WORKERS"),
    ("WORKERD_WORKRS", "WORKERS"),
    ("TASK", "TASKS"),
    ("queue", "QUEUES"),
    ("LOGLEVEL", "LOG_LEVEL"),
    ("MAX_RETRYS", "MAX_RETRIES"),
    ("JOB_TIMEOUTS", "JOB_TIMEOUT"),
    ("TASK_TIMOUT_MS", "TASK_TIMEOUT_MS"),
]


def shown(name: str, value: str) -> str:
    return config.load({name: value}, environ={}).shown(name)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://u:geheim@db.example:5432/app", "postgresql://u:********@db.example:5432/app"),
        ("postgresql://u@db.example/app", "postgresql://u@db.example/app"),
        ("postgresql://u:geheim@a,b:5433/app?sslmode=require", "postgresql://u:********@a,b:5433/app?sslmode=require"),
        ("postgresql:///app?host=/run/pg&password=geheim", "postgresql:///app?host=/run/pg&password=********"),
        # passwords that should have been percent-encoded
        ("postgresql://u:ge@heim@db.example/app", "postgresql://u:********@db.example/app"),
        ("postgresql://u:ge/heim@db.example/app", "postgresql://u:********@db.example/app"),
        ("postgresql://u:ge#heim@db.example/app", "postgresql://u:********@db.example/app"),
        ("postgresql://u:ge?heim@db.example/app", "postgresql://u:********@db.example/app"),
        ("postgresql://u:ge[heim@db.example/app", "postgresql://u:********@db.example/app"),
        ("postgresql://u:geheim@[::1]:5432/app", "postgresql://u:********@[::1]:5432/app"),
        (
            "postgresql://db.example/app?user=a@b&password=geheim",
            "postgresql://db.example/app?user=a@b&password=********",
        ),
        ("postgresql://u:geheim@[::1/app", "********"),
        ("host=db.example password=geheim", "********"),
    ],
)
def test_an_address_keeps_its_host_and_loses_its_password(url: str, masked: str) -> None:
    assert shown("database_url", url) == masked


@pytest.mark.parametrize(
    ("name", "value", "masked"),
    [
        ("openai_api_key", "sk-geheim", "********"),
        ("api_token", "geheim", "********"),
        ("mineru_api_token", "geheim?x=1", "********"),
        ("smtp_url", "smtp://u:geheim@mail.example:587", "smtp://u:********@mail.example:587"),
        ("webhook_url", "https://hooks.example/services/T0/geheimgeheim", "https://hooks.example/services/T0/********"),
        ("webhook_url", "https://hooks.example/in?token=geheim&x=1", "https://hooks.example/in?token=********&x=1"),
        (
            "webhook_url",
            "https://hooks.example/geheimgeheim?to=a@b.example",
            "https://hooks.example/********?to=a@b.example",
        ),
    ],
)
def test_a_key_keeps_nothing(name: str, value: str, masked: str) -> None:
    assert shown(name, value) == masked


def test_other_settings_are_shown_as_they_could_be_written() -> None:
    loaded = config.load({"queues": "a, b", "workers": "3"}, environ={})
    assert [loaded.shown(name) for name in ("queues", "workers", "database_url", "log_format")] == ["a,b", "3", "", ""]


def test_keys_of_others_are_ignored_without_a_warning(directory: Path) -> None:
    (directory / ".env").write_text("".join(f"{key}=x\n" for key in FOREIGN.split()))
    loaded = config.load(environ={})
    assert loaded.warnings == []
    assert set(loaded.sources.values()) == {"default"}


@pytest.mark.parametrize(("written", "meant"), MISSPELT)
def test_a_key_that_looks_misspelt_is_warned_about(directory: Path, written: str, meant: str) -> None:
    (directory / ".env").write_text(f"{written}=x\n")
    assert config.load(environ={}).warnings == [f".env: {written} is no setting, did you mean {meant}?"]


def test_a_line_that_is_no_entry_is_warned_about_with_its_number_and_nothing_else_says_so(
    directory: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (directory / ".env").write_text('# ours\n\nWORKERS: 3\nMAX_RETRIES=7\n\n=x\n\nPROSE\nTWO="a\nb"\nNAME="w" x\n')
    loaded = config.load(environ={})
    assert loaded.warnings == [f".env: line {number} is not KEY=VALUE" for number in (3, 6, 8, 11)]
    assert (loaded.settings.max_retries, loaded.settings.name) == (7, "worker")
    assert (caplog.text, *capfd.readouterr()) == ("", "", "")


def test_no_setting_looks_like_a_misspelling_of_another(directory: Path) -> None:
    keys = {key for name in config.Settings.model_fields for key in config.names(name)}
    (directory / ".env").write_text("".join(f"{key}=\nWORKERD_{key}=\n" for key in keys))
    assert config.load(environ={}).warnings == []
