"""The dashboard."""

from __future__ import annotations

import sys

from workerctl import context


def top(runtime: context.RuntimeOption = None) -> int:
    """Show the daemon, its queues, jobs and log, live on the terminal; keys scale, pause and retry.

    Example: workerctl top --name web
    """
    from workerd.errors import ConfigError, WorkerdError

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("top needs a terminal; for scripts there is `workerctl status --json`")
    try:
        import textual  # noqa: F401 - the extra
    except ImportError:
        raise WorkerdError("top needs Textual: pip install 'workerd[tui]'") from None
    from workerctl.top.app import Top
    from workerctl.top.source import Source

    shown = Top(Source(context.runtime(runtime)))
    shown.run()
    return shown.return_code or 0
