"""Log lines and log files."""

from __future__ import annotations

import contextvars
import json
import logging
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from workerd.daemon import current, logs, parent
from workerd.daemon.log_lines import ConsoleFormatter, JsonFormatter
from workerd.errors import ConfigError
from workerd.redact import Redactor
from workerd.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("own_logging")

log = logging.getLogger("workerd.test")


def set_up(folder: Path, **settings: Any) -> Settings:
    made = Settings(log_dir=folder / "log", **settings)
    logs.set_up(made)
    return made


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def record(**fields: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "workerd.test", "levelname": "INFO", "levelno": 20, **fields})


def test_a_json_line_holds_time_level_logger_message_and_what_the_record_carries(tmp_path: Path) -> None:
    settings = set_up(tmp_path)
    log.info("job %s\nended", 7, extra={"job": 7, "duration_s": 0.25, "path": tmp_path})
    (line,) = lines(settings.log_path)
    assert abs(datetime.fromisoformat(line.pop("ts")).timestamp() - datetime.now().astimezone().timestamp()) < 60
    assert line == {
        "level": "INFO",
        "logger": "workerd.test",
        "node": settings.node,
        "job": 7,
        "message": "job 7\nended",
        "duration_s": 0.25,
        "path": str(tmp_path),
    }


def test_a_traceback_is_a_field(tmp_path: Path) -> None:
    settings = set_up(tmp_path)
    try:
        raise KeyError("x")
    except KeyError:
        log.exception("failed")
    (line,) = lines(settings.log_path)
    assert line["traceback"].startswith("Traceback")
    assert line["traceback"].endswith("KeyError: 'x'")


@pytest.mark.parametrize(
    ("fields", "key", "shown"),
    [
        ({"msg": "a \udcff b"}, "message", "a \udcff b"),
        ({"msg": "m", "big": 2**70}, "big", 2**70),
        ({"msg": "m", "by_number": {1: 2}}, "by_number", {"1": 2}),
    ],
)
def test_no_record_is_lost_for_what_it_carries(fields: dict[str, Any], key: str, shown: object) -> None:
    line = JsonFormatter(Redactor(Settings())).format(record(**fields))
    assert json.loads(line)[key] == shown
    line.encode()


def test_console_lines_have_colours_only_on_a_terminal() -> None:
    warning = record(msg="a %s", args=("b",), levelname="WARNING", levelno=logging.WARNING)
    plain = ConsoleFormatter(Redactor(Settings()), colours=False).format(warning)
    datetime.strptime(plain[:23], "%Y-%m-%d %H:%M:%S.%f")  # noqa: DTZ007 - the line is in local time
    assert plain[23:] == " WARNING a b"
    assert ConsoleFormatter(Redactor(Settings()), colours=True).format(warning) == f"\x1b[33m{plain}\x1b[0m"
    assert "\x1b" not in ConsoleFormatter(Redactor(Settings()), colours=True).format(record(msg="a"))


def test_a_console_line_ends_with_its_traceback() -> None:
    error = ValueError("x")
    line = ConsoleFormatter(Redactor(Settings()), colours=False).format(
        record(msg="failed", exc_info=(ValueError, error, None))
    )
    assert line.endswith("failed\nValueError: x")


def test_warnings_and_errors_have_a_file_of_their_own(tmp_path: Path) -> None:
    settings = set_up(tmp_path, log_level="WARNING", name="mine")
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        log.log(level, "%s", level)
    assert [line["message"] for line in lines(tmp_path / "log" / "mine.log")] == ["30", "40"]
    assert [line["message"] for line in lines(settings.error_log_path)] == ["30", "40"]
    settings = set_up(tmp_path, log_level="DEBUG", name="other")
    log.debug("fine")
    assert [line["level"] for line in lines(settings.log_path)] == ["DEBUG"]
    assert settings.error_log_path.read_text() == ""


@pytest.mark.parametrize(("kind", "json_on_stderr"), [(None, True), ("json", True), ("console", False)])
def test_standard_error_has_the_format_that_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str | None, json_on_stderr: bool
) -> None:
    settings = set_up(tmp_path, log_format=kind)
    log.info("hello")
    said = capsys.readouterr().err
    assert said.startswith("{") == json_on_stderr
    assert settings.log_path.read_text().startswith("{") == (kind != "console")


def test_in_the_background_standard_error_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(parent.BACKGROUND, "1")
    set_up(tmp_path)
    log.error("hello")
    assert capsys.readouterr().err == ""


def test_where_standard_error_is_not_read_the_log_has_what_handlers_print(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back at the end
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    settings = set_up(tmp_path, log_stderr=False)
    log.error("hello")
    print("printed")
    assert capsys.readouterr() == ("", "")
    assert [line["message"] for line in lines(settings.log_path)] == ["hello", "printed"]


def test_a_place_that_cannot_be_written_is_told_with_advice(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file is in its place")
    with pytest.raises(ConfigError, match=r"cannot be written: .* \(set LOG_DIR to a writable directory\)"):
        set_up(tmp_path)


def test_what_is_logged_within_an_attempt_names_it(tmp_path: Path) -> None:
    settings = set_up(tmp_path)

    def work() -> None:
        current.attempt.set((7, "ocr", 2))
        log.info("within")
        log.info("of another", extra={"job": 8})
        logging.getLogger("somebody.else").warning("in a library")

    contextvars.copy_context().run(work)
    log.info("outside")
    within, other, library, outside = lines(settings.log_path)
    assert [within[key] for key in ("job", "task", "attempt")] == [7, "ocr", 2]
    assert list(within) == ["ts", "level", "logger", "node", "job", "task", "attempt", "message"]
    assert (other["job"], "attempt" in other) == (8, False)
    assert library["attempt"] == 2
    assert "job" not in outside


def test_a_console_line_names_the_attempt() -> None:
    formatter = ConsoleFormatter(Redactor(Settings()), colours=False)
    assert formatter.format(record(msg="hello", job=7, task="ocr", attempt=2))[23:] == " INFO    [job 7 ocr #2] hello"
    assert formatter.format(record(msg="hello", job=7))[23:] == " INFO    [job 7] hello"


@pytest.mark.parametrize("kind", ["json", "console"])
def test_no_secret_reaches_a_log_whatever_carries_it(tmp_path: Path, kind: str) -> None:
    password, key = 'pa"ss/wörd', "sk-abcdef"
    dsn = f"postgresql://user:{quote(password, safe='')}@host/db"
    settings = set_up(tmp_path, database_url=dsn, openai_api_key=key, log_format=kind)
    try:
        raise ValueError(f"cannot reach {dsn} with {key}")
    except ValueError:
        log.exception(
            "password %s of %s", password, dsn, extra={"how": {"key": [key]}, "url": "redis://me:hidden@there/0"}
        )
    text = settings.log_path.read_text() + settings.error_log_path.read_text()
    assert "********" in text
    for secret in (password, json.dumps(password)[1:-1], quote(password, safe=""), key, "hidden"):
        assert secret not in text
