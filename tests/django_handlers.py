"""Tasks of an application that uses Django's ORM as it does in a web server."""

from __future__ import annotations

import contextvars
import os
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

import django
from django.conf import settings
from django.db import connection, transaction

from workerd import task

if not settings.configured:
    place = urlsplit(os.environ["DJANGO_DATABASE"])
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": parse_qs(place.query)["host"][0] if place.hostname is None else place.hostname,
        "PORT": place.port,
        "NAME": place.path[1:],
        "USER": place.username,
        "PASSWORD": place.password,
    }
    age = os.environ.get("DJANGO_MAX_AGE")
    settings.configure(DATABASES={"default": {**database, "CONN_MAX_AGE": None if age == "None" else int(age or 0)}})
    django.setup()

seen = contextvars.ContextVar("seen", default=0)


def _ask() -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), current_setting('is_superuser')")
        return {"backend": cursor.fetchone()[0], "thread": threading.get_ident()}


@task
def asks() -> dict[str, Any]:
    before = seen.get()
    seen.set(before + 1)
    return {**_ask(), "seen": before}


@task
def leaves_a_transaction_open() -> dict[str, Any]:
    transaction.atomic().__enter__()
    return _ask()


@task
async def asks_on_loop() -> dict[str, Any]:
    from asgiref.sync import sync_to_async

    return await sync_to_async(_ask)()


@task(cpu=True)
def asks_in_child() -> dict[str, Any]:
    return _ask()
