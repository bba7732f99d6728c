"""Tools with which users test their tasks."""

from __future__ import annotations

from workerd.testing.inline import run
from workerd.testing.record import Record

__all__ = ["Record", "run"]
