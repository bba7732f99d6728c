"""Log rotation by logrotate, in place of the daemon's own."""

from __future__ import annotations

from pathlib import Path

from workerctl.install import packed
from workerctl.install.target import File, Target

RULES = Path("/etc/logrotate.d/invoice-worker")


class Logrotate(Target):
    name = "logrotate"
    is_system = True
    next_step = "set LOG_MAX_SIZE=0 in /etc/invoice-worker/worker.env, then systemctl reload invoice-worker"

    def files(self) -> list[File]:
        return [File(RULES, packed.text("systemd/logrotate.d/invoice-worker"))]

    def remove(self) -> list[str]:
        RULES.unlink(missing_ok=True)
        return []
