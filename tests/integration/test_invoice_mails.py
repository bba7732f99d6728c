"""What becomes of mails when the mail server takes them, refuses them, is silent or away."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiosmtpd.smtp import SMTP

from invoices import notify, send_notification
from tests.support import InProcess, until
from workerd import JobFailed, Queue, Retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg
    from aiosmtpd.smtp import Envelope, Session

    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.usefixtures("assistant")
LETTER = {"subject": "Größe", "text": "Text", "to": "you@test.example"}


@pytest.fixture
async def assistant(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[InProcess]:
    """A daemon that runs the assistant's tasks, gives up on silence soon and tries again quickly."""
    monkeypatch.setattr(notify, "TIMEOUT", 0.5)
    monkeypatch.setattr(send_notification, "retry", Retry(max=1000, interval=0.05))
    async with InProcess(settings.model_copy(update={"tasks": ("invoices",)})) as running:
        yield running


class Postbox:
    """Takes mail; refuses recipients with the replies that wait."""

    def __init__(self, *refusals: str) -> None:
        self.refusals = list(refusals)
        self.mails: list[Envelope] = []

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.refusals:
            return self.refusals.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.mails.append(envelope)
        return "250 OK"


@asynccontextmanager
async def mail_server(postbox: Postbox, monkeypatch: pytest.MonkeyPatch, port: int = 0) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(postbox, hostname="test.example"), "127.0.0.1", port)
    monkeypatch.setenv("SMTP_URL", f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}?from=bot@test.example")
    try:
        yield
    finally:
        server.close()


async def test_a_mail_arrives(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    postbox = Postbox()
    async with mail_server(postbox, monkeypatch):
        job = await queue.enqueue(send_notification, LETTER)
        assert await queue.result(job, timeout=60) == {"mail": True, "webhook": False}
    [mail] = postbox.mails
    assert (mail.mail_from, mail.rcpt_tos) == ("bot@test.example", ["you@test.example"])
    assert isinstance(mail.content, bytes)
    assert b"Message-ID: <" in mail.content


async def test_a_refused_recipient_fails_at_once(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    async with mail_server(Postbox("550 no such user"), monkeypatch):
        with pytest.raises(JobFailed, match="refused the recipient you@"):
            await queue.result(await queue.enqueue(send_notification, LETTER), timeout=60)


async def test_a_recipient_refused_for_now_is_tried_again(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    postbox = Postbox("451 greylisted, come back later")
    async with mail_server(postbox, monkeypatch):
        await queue.result(await queue.enqueue(send_notification, LETTER), timeout=60)
    assert len(postbox.mails) == 1


@pytest.mark.parametrize("listens", [False, True], ids=["down", "silent"])
async def test_a_mail_waits_for_its_server(
    queue: Queue, db: DB, monkeypatch: pytest.MonkeyPatch, listens: bool
) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        if listens:
            taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("SMTP_URL", f"smtp://127.0.0.1:{port}")
        job = await queue.enqueue(send_notification, LETTER)

        async def tried() -> Any:
            return await db.fetchval("SELECT attempts FROM workerd.job WHERE id = $1 AND failures >= 2", job)

        assert "the mail server does not answer" in await until(tried, "two attempts have failed")
    postbox = Postbox()
    async with mail_server(postbox, monkeypatch, port):
        await queue.result(job, timeout=60)
    assert len(postbox.mails) == 1


@pytest.mark.parametrize(
    ("url", "payload", "why"),
    [
        ("", LETTER, "SMTP_URL is not set"),
        ("http://127.0.0.1", LETTER, "SMTP_URL is no address such as"),
        ("smtp://127.0.0.1", {**LETTER, "to": "a@b.example\nBcc: c@d.example"}, "cannot be written"),
        ("", {"subject": "a", "text": "b"}, "nobody to notify"),
        ("", {"subject": "a", "text": "b", "webhook": "file:///etc/hostname"}, "no http or https address"),
    ],
)
async def test_a_notification_that_can_reach_nobody_says_why(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, url: str, payload: dict[str, str], why: str
) -> None:
    monkeypatch.setenv("SMTP_URL", url)
    with pytest.raises(JobFailed, match=why):
        await queue.result(await queue.enqueue(send_notification, payload), timeout=60)
