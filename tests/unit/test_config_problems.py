"""Settings that cannot be used: what is said about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from workerd import config
from workerd.errors import ConfigError

pytestmark = pytest.mark.usefixtures("directory")

WRONG = [
    # setting, text, what is allowed
    ("POLL_INTERVAL", "5000", "did you mean milliseconds? Write 5"),
    ("POLL_INTERVAL", "0", "greater than or equal to 0.01"),
    ("SENTRY_DSN", "https://errors.example/42", "https://key@sentry.example/42"),
    ("WORKERS", "0", "greater than or equal to 1"),
    ("WORKERS", "10001", "less than or equal to 10000"),
    ("WORKERS", "two", "has to be a whole number ("),
    ("WORKERS", "2.5", "has to be a whole number ("),
    ("CONCURRENT_JOBS", "0", "greater than or equal to 1"),
    ("TASKS", ",", "has to name at least one ("),
    ("NODE_ID", "0", "greater than or equal to 1"),
    ("NODE_ID", str(2**63), f"less than {2**63}"),
    ("CLAIM_BATCH", "501", "less than or equal to 500"),
    ("HEARTBEAT_INTERVAL", "0", "greater than or equal to 0.1"),
    ("MAX_RETRIES", "-1", "greater than or equal to 0"),
    ("MAX_CRASHES", "0", "greater than or equal to 1"),
    ("JOB_TIMEOUT", "soon", "use seconds, or 90s, 5m, 2h, 7d"),
    ("JOB_TIMEOUT", "5 parsecs", "the units are ms, s, m, h, d, w"),
    ("JOB_TIMEOUT", "0", "greater than 0"),
    ("RETRY_DELAY", "-1", "use seconds, or 90s, 5m, 2h, 7d"),
    ("FAILURE_TTL", "0", "greater than 0"),
    ("MAX_MEMORY", "1M", f"greater than or equal to {32 * 1024**2}"),
    ("LOG_MAX_SIZE", "lots", "use bytes, or 500M, 2G"),
    ("LOG_MAX_SIZE", "9" * 400, "use bytes, or 500M, 2G"),
    ("LOG_KEEP", "-1", "greater than or equal to 0"),
    ("LOG_LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ("LOG_FORMAT", "xml", "'console' or 'json'"),
    ("LOG_JOBS", "some", "'all', 'slow' or 'failures'"),
    ("MONITOR", "0", "greater than 0"),
    ("LOG_STDERR", "perhaps", "has to be true or false ("),
    ("ENABLE_METRICS", "perhaps", "has to be true or false ("),
    ("MANAGER_PORT", "0", "greater than or equal to 1"),
    ("METRICS_PORT", "70000", "less than or equal to 65535"),
    ("DATABASE_POOL_SIZE", "0", "greater than or equal to 1"),
    ("DATABASE_MAX_OVERFLOW", "-1", "greater than or equal to 0"),
    ("DATABASE_POOL_TIMEOUT", "0", "greater than 0"),
    ("DRAIN_TIMEOUT", "soon", "not a duration"),
    ("MAX_JOBS", "0", "greater than or equal to 1"),
    ("PROGRESS_INTERVAL", "0.01", "greater than or equal to 0.05"),
    ("RESULT_TTL", "a week", "not a duration"),
    ("STALL_LIMIT", "0.5", "greater than or equal to 1"),
]
# Names, addresses, keys and places: any text may be one; whether it is one is seen where it is used. NAME has a test of its own.
ANY_TEXT = {
    "API_TOKEN",
    "APP_DIR",
    "ATTACHMENTS_DIR",
    "DATABASE_DIRECT_URL",
    "DATABASE_URL",
    "ERROR_LOG_FILE",
    "LOG_DIR",
    "LOG_FILE",
    "MANAGER_HOST",
    "MANAGER_URL",
    "METRICS_HOST",
    "MINERU_API_TOKEN",
    "NAME",
    "NODE_NAME",
    "OPENAI_API_BASE",
    "OPENAI_API_KEY",
    "QUEUES",
    "RUNTIME_DIR",
    "SMTP_URL",
    "STATE_DIR",
    "WEBHOOK_URL",
}


def test_every_setting_has_a_wrong_value_here_or_takes_any_text() -> None:
    assert {setting for setting, _, _ in WRONG} | ANY_TEXT == {name.upper() for name in config.Settings.model_fields}


@pytest.mark.parametrize(("setting", "text", "allowed"), WRONG)
def test_a_wrong_value_is_named_with_setting_value_what_is_allowed_and_where_it_was_read(
    directory: Path, setting: str, text: str, allowed: str
) -> None:
    (directory / "my.env").write_text(f"{setting}={text}\n")
    for flags, file, environ, source in (
        ({setting: text}, None, {}, f"--{setting.lower().replace('_', '-')}"),
        ({}, None, {setting: text}, f"{setting} in the environment"),
        ({}, Path("my.env"), {}, f"{setting} in my.env"),
    ):
        with pytest.raises(ConfigError) as raised:
            config.load(flags, file, environ)
        (problem,) = raised.value.problems
        assert problem.startswith(f"{setting}={text!r}: ")
        assert allowed in problem
        assert problem.endswith(f"({source})")
        assert "\n" not in problem


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "x" * 65, "ä", "a\n"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^NAME=.*: has to be 1 to 64 letters, digits, .*\(--name\)$"):
        config.load({"name": name}, environ={})


def test_all_problems_are_told_at_once(directory: Path) -> None:
    (directory / ".env").write_text("WORKERS=none\nLOG_LEVEL=LOUD\n")
    with pytest.raises(ConfigError) as raised:
        config.load({"poll_interval": "5000"}, environ={"TASK_TIMEOUT_MS": "²", "METRICS_PORT": "-1"})
    assert [problem.partition("=")[0] for problem in raised.value.problems] == [
        "WORKERS",
        "POLL_INTERVAL",
        "JOB_TIMEOUT",
        "LOG_LEVEL",
        "METRICS_PORT",
    ]
    assert "(TASK_TIMEOUT_MS in the environment)" in str(raised.value)


def test_the_message_about_an_alias_names_the_alias() -> None:
    with pytest.raises(ConfigError, match=r"WORKERS='none': .* \(WORKER_COUNT in the environment\)"):
        config.load(environ={"WORKER_COUNT": "none"})
