"""Tools with which users test their tasks."""

from __future__ import annotations

from workerd.testing.drain import drain
from workerd.testing.inline import run
from workerd.testing.jobs import advance, assert_enqueued
from workerd.testing.record import Record

__all__ = ["Record", "advance", "assert_enqueued", "drain", "run"]
