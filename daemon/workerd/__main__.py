"""`workerd`: the daemon in the foreground, as supervisors call it."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerd.errors import ConfigError, TaskError, WorkerdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.config import Configuration
    from workerd.daemon.handover.inheritance import Inheritance
    from workerd.daemon.handover.launch import Launch
    from workerd.settings import Settings
    from workerd.tasks import Task

EXPORTED = (
    "openai_api_key",
    "openai_api_base",
    "mineru_api_token",
    "smtp_url",
    "webhook_url",
    "attachments_dir",
    "state_dir",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the daemon; exits 0 after a drain, 1 when it cannot start or fails, 2 for settings that cannot be used."""
    gc.set_threshold(50_000, 20, 50)  # imports make no garbage, and jobs that come in hundreds little
    for number in (signal.SIGTERM, signal.SIGINT):  # until the daemon drains: it has nothing to lose yet
        signal.signal(number, lambda *_: sys.exit(0))
    from workerd import __version__, config
    from workerd.daemon import parent
    from workerd.daemon.handover.inheritance import Inheritance
    from workerd.daemon.handover.launch import Launch
    from workerd.redact import is_secret

    inheritance = Inheritance.receive()
    parser = argparse.ArgumentParser(
        "workerd",
        description="Runs the jobs of a queue in PostgreSQL.",
        epilog="Example: workerd --workers 4 --tasks myapp.tasks",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file instead of .env")
    parser.add_argument("--version", action="version", version=f"workerd {__version__}")
    config.add_flags(parser)
    arguments = parser.parse_args(argv)
    given = config.flags_of(arguments)
    if argv is None and any(is_secret(name) and value for name, value in given.items()):
        shown = config.command_line(given, arguments.config)
        os.execv(sys.executable, [sys.executable, "-m", "workerd", *shown])  # noqa: S606 - no shell wanted
    if parent.is_needed():
        parent.stay()
    environment = dict(os.environ)  # before anything is put into it for the tasks

    def load() -> Configuration:
        return config.load(given, arguments.config, environment)

    flags = {**config.moved_flags(environment), **given}
    words = sys.argv[1:] if argv is None else argv
    launch = Launch(words, load, environment, flags=flags, file=arguments.config)
    try:
        _run(load(), launch, inheritance)
    except WorkerdError as error:
        problems, code = (error.problems, 2) if isinstance(error, ConfigError) else ((str(error),), 1)
        if inheritance is not None:
            inheritance.failed("; ".join(problems))
        sys.exit(_fail(problems, code))
    except Exception as error:
        if inheritance is not None:
            inheritance.failed(f"{type(error).__name__}: {error}")
        raise


def _run(configuration: Configuration, launch: Launch, inheritance: Inheritance | None) -> None:
    from workerd import embedded
    from workerd.daemon import crash_dump, logs, loop, parent, parting, reporting, tracing
    from workerd.daemon.daemon import Daemon
    from workerd.daemon.pidfile import PidFile
    from workerd.daemon.transport.choose import choose
    from workerd.tasks import registry

    settings = configuration.settings
    pid_file = PidFile(settings.pid_file, None if inheritance is None else inheritance.pid_file)
    if inheritance is None:
        pid_file.acquire()
    try:
        logs.set_up(settings)
        crash_dump.install(settings.error_log_path)
        os.environ.update({name: each.value for name, each in configuration.libraries.items()})
        reporting.start(settings, registry)
        for warning in configuration.warnings:
            logging.getLogger("workerd").warning("settings: %s", warning)
        for name in EXPORTED:  # tasks read them from the environment, wherever they were given
            value = getattr(settings, name)
            if value is not None:
                os.environ[name.upper()] = str(value)
        tasks = _load(settings)
        tracing.start(settings.node)
        transport = choose(settings, tasks)
        gc.freeze()  # what was imported stays: the collector need not look at it again
        main = _main(Daemon, settings, transport, tasks, pid_file, launch, inheritance)
        loop.run(main, pid_file.hand_on)  # else a fork that stays keeps its lock
        if settings.uses_embedded and parent.is_systemd():  # which would kill it in our wake
            embedded.stop_if_unused(settings.state_dir)
    except (WorkerdError, SystemExit):
        raise
    except BaseException:
        logging.getLogger("workerd").critical("the daemon ends by an error of its own", exc_info=True)
        raise
    finally:
        parting.end(0 if sys.exc_info()[0] is None else 1, pid_file.release)


def _load(settings: Settings) -> dict[str, Task[..., Any]]:
    from workerd.tasks import load_modules

    try:
        return load_modules(settings.tasks, settings.app_dir)
    except TaskError as error:
        if error.__cause__ is not None:  # whoever wrote the module needs the place
            logging.getLogger("workerd").exception("importing the tasks failed", exc_info=error.__cause__)
        raise


async def _main(daemon: type, *parts: object) -> None:
    await daemon(*parts).run()


def _fail(lines: Sequence[str], code: int) -> int:
    from workerd.daemon import own_log

    for line in lines:
        if own_log.is_installed():
            logging.getLogger("workerd").critical("%s", line)
        print(f"workerd: {line}", file=sys.__stderr__)
    return code


if __name__ == "__main__":
    main()
