"""The daemon's log is whole, whatever the application does with Python's logging."""

from __future__ import annotations

import contextvars
import itertools
import json
import logging
import logging.config
import logging.handlers
import queue
import sys
from typing import TYPE_CHECKING, Any

import pytest

from workerd.daemon import current, logs, own_log
from workerd.daemon.printed import LONGEST, LogLines
from workerd.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("own_logging")

log = logging.getLogger("workerd.test")
number = itertools.count()  # of loggers that no other test has disabled
CONSOLE = {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}
DJANGO = {"version": 1, "handlers": {"console": CONSOLE}, "root": {"handlers": ["console"], "level": "WARNING"}}
FILE = """[loggers]\nkeys=root\n[handlers]\nkeys=console\n[formatters]\nkeys=\n[logger_root]\nlevel=WARNING\nhandlers=console
[handler_console]\nclass=StreamHandler\nargs=(sys.stderr,)\n"""


def of_file(folder: Path) -> None:
    (folder / "logging.ini").write_text(FILE)
    logging.config.fileConfig(folder / "logging.ini")


def without_handlers(_: Path) -> None:
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.handlers = []
    for logger in (root, *(logging.getLogger(name) for name in logging.Logger.manager.loggerDict)):
        logger.handlers.clear()
        logger.filters.clear()


def drop(_: logging.LogRecord) -> bool:
    return False


@pytest.fixture(autouse=True)
def without_filters() -> Iterator[None]:
    yield
    log.removeFilter(drop)


def silenced(_: Path) -> None:
    for name in list(logging.Logger.manager.loggerDict):
        if name.startswith("workerd"):
            logger = logging.getLogger(name)
            logger.disabled, logger.propagate = True, False
            logger.setLevel(logging.CRITICAL)
    log.addFilter(drop)


def of_a_recursive_handler(_: Path) -> None:
    class Telling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logging.getLogger(f"shop.telling.{next(number)}").warning("sending %s", record.getMessage())

    logging.getLogger().addHandler(Telling())


def of_printing(_: Path) -> None:
    class Printing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print(self.format(record))

    logging.getLogger().addHandler(Printing())


def streams_into_loggers(_: Path) -> None:
    class IntoLogger:
        def write(self, text: str) -> None:
            if text.strip():
                logging.getLogger(f"stderr.{next(number)}").warning(text.strip())

        def flush(self) -> None:
            pass

    sys.stderr = IntoLogger()
    logging.getLogger().addHandler(logging.StreamHandler(sys.stderr))


def raising(_: Path) -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            if record.name.startswith("workerd"):
                raise OSError("no log server")
            return True

    def factory(*parts: Any, **more: Any) -> logging.LogRecord:
        if parts[0].startswith("workerd"):
            raise LookupError("no request")
        return logging.LogRecord(*parts, **more)

    logging.getLogger().addHandler(Broken())
    logging.setLogRecordFactory(factory)


CONFIGURED: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "dictConfig": lambda _: logging.config.dictConfig(DJANGO),
    "dictConfig, others kept": lambda _: logging.config.dictConfig({**DJANGO, "disable_existing_loggers": False}),
    "dictConfig of our loggers": lambda _: logging.config.dictConfig(
        {**DJANGO, "loggers": {"workerd": {"level": "CRITICAL", "handlers": ["console"], "propagate": False}}}
    ),
    "fileConfig": of_file,
    "basicConfig": lambda _: logging.basicConfig(level=logging.WARNING),
    "basicConfig, forced": lambda _: logging.basicConfig(level=logging.WARNING, force=True),
    "a handler": lambda _: logging.getLogger().addHandler(logging.StreamHandler(sys.stderr)),
    "shutdown": lambda _: logging.shutdown(),
    "no handlers": without_handlers,
    "silenced": silenced,
    "a handler that logs": of_a_recursive_handler,
    "a handler that prints": of_printing,
    "streams into loggers": streams_into_loggers,
    "raising": raising,
}


def said(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in settings.log_path.read_text().splitlines()]


@pytest.mark.parametrize("captured", [True, False], ids=["captured", "console"])
@pytest.mark.parametrize("configured", CONFIGURED)
def test_each_line_is_in_the_log_once_whatever_the_application_configures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, configured: str, captured: bool
) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back at the end
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    settings = Settings(log_dir=tmp_path / "log", log_stderr=not captured, log_format="json")
    logs.set_up(settings)

    def work() -> None:
        current.attempt.set((7, "ocr", 2))
        log.info("ours")
        logging.getLogger(f"workerd.imported_later.{next(number)}").error("a failure")
        logging.getLogger(f"shop.{next(number)}").warning("of the application")

    CONFIGURED[configured](tmp_path)
    contextvars.copy_context().run(work)
    print("printed")
    logged = [line for line in said(settings) if line["logger"].startswith(("workerd.", "shop."))]
    logged = [line for line in logged if not line["message"].startswith("sending")]
    assert [line["message"] for line in logged] == ["ours", "a failure", "of the application"]
    assert {line["job"] for line in logged} == {7}
    errors = [json.loads(line)["message"] for line in settings.error_log_path.read_text().splitlines()]
    assert errors.count("a failure") == 1
    assert len(said(settings)) < 12  # nothing goes round
    shown = capsys.readouterr()
    if captured:
        assert [line["message"] for line in said(settings)].count("printed") == 1
        assert shown == ("", "")
    elif configured != "a handler that prints":
        for message in ("ours", "a failure"):
            assert shown.err.count(message) == 1 + (configured == "a handler that logs")


def test_loggers_of_the_application_obey_it(tmp_path: Path) -> None:
    settings = Settings(log_dir=tmp_path / "log")
    logs.set_up(settings)
    logging.disable(logging.CRITICAL)
    log.info("ours")
    logging.getLogger(f"shop.{next(number)}").critical("not wanted")
    assert [line["message"] for line in said(settings)] == ["ours"]


def test_handlers_of_the_application_still_get_the_records_of_both(tmp_path: Path) -> None:
    logs.set_up(Settings(log_dir=tmp_path / "log"))
    taken: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    logging.getLogger().addHandler(logging.handlers.QueueHandler(taken))
    log.info("ours")
    logging.getLogger(f"shop.{next(number)}").warning("theirs")
    assert [taken.get_nowait().getMessage() for _ in range(2)] == ["ours", "theirs"]


def test_a_level_that_changes_leaves_that_of_the_application_alone(tmp_path: Path) -> None:
    settings = Settings(log_dir=tmp_path / "log")
    logs.set_up(settings)
    own_log.set_level("DEBUG")
    log.debug("fine")
    logging.getLogger(f"shop.{next(number)}").debug("theirs follows")
    logging.getLogger().setLevel(logging.ERROR)
    own_log.set_level("WARNING")
    log.info("too fine")
    logging.getLogger(f"shop.{next(number)}").warning("not wanted")
    assert [line["message"] for line in said(settings)] == ["fine", "theirs follows"]


def test_what_is_printed_without_an_end_of_line_does_not_pile_up(tmp_path: Path) -> None:
    settings = Settings(log_dir=tmp_path / "log")
    logs.set_up(settings)
    printed = LogLines("stdout")
    for _ in range(LONGEST + 1):
        printed.write(".")
    assert [len(line["message"]) for line in said(settings)] == [LONGEST + 1]
