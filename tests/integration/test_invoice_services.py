"""What becomes of the assistant's jobs when the services it calls answer well, late, wrongly or not at all."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from invoices import llm, mineru, notify, ocr_extract, send_notification
from invoices.samples.make import TEXT, pdf
from tests.support import InProcess
from workerd import JobFailed, Queue, Retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    import asyncpg

    from workerd import Task
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

QUICKLY = Retry(max=3, interval=0.05)
pytestmark = pytest.mark.usefixtures("assistant")


@dataclass
class Answer:
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    how: str = "at once"  # or "never", or "cut off"


class Service(ThreadingHTTPServer):
    """HTTP on this machine: each request gets the next of the answers that wait for it, the last one again and again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers: dict[str, list[Answer]] = defaultdict(list)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.closing = threading.Event()


class Exchange(BaseHTTPRequestHandler):
    server: Service

    def answer(self) -> None:
        request = f"{self.command} {self.path}"
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((request, {k.lower(): v for k, v in self.headers.items()}, body))
        waiting = self.server.answers[request] or [Answer(501)]
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if answer.how == "never":
            self.server.closing.wait()
        if answer.how != "at once":
            return
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = answer  # noqa: N815 - names of the library

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.closing.set()
        running.shutdown()
        thread.join()


@pytest.fixture
async def assistant(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[InProcess]:
    """A daemon that runs the assistant's tasks and loses little time with retries."""
    for each in (ocr_extract, send_notification):
        monkeypatch.setattr(each, "retry", QUICKLY)
    async with InProcess(settings.model_copy(update={"tasks": ("invoices",)})) as running:
        yield running


def js(value: Any) -> Answer:
    return Answer(body=json.dumps(value).encode())


def says(content: Any) -> Answer:
    """What a chat endpoint sends when the model says this."""
    text = content if isinstance(content, str) else json.dumps(content)
    return js({"choices": [{"message": {"role": "assistant", "content": text}}]})


def archive(text: str, name: str = "folder/full.md") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, text)
    return packed.getvalue()


def broken(packed: bytes) -> bytes:
    """The archive with a wrong first byte of its content."""
    head, name, content = packed.partition(b"full.md")
    return head + name + b"\xff" + content[1:]


@dataclass
class Scene:
    """A service that is set up and works, and the job that needs it."""

    task: Task[..., Any]
    payload: dict[str, str]
    service: Service

    async def enqueue(self, queue: Queue) -> int:
        return await queue.enqueue(self.task, self.payload)


Stage = tuple[Service, "Path", pytest.MonkeyPatch]


@pytest.fixture
def stage(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return service, tmp_path, monkeypatch


CHAT, UPLOAD, RESULT = "POST /v1/chat/completions", "POST /v4/file-urls/batch", "GET /v4/extract-results/batch/b1"


def chat(stage: Stage) -> Scene:
    """The text of an invoice without its number, and a model that finds it."""
    service, folder, monkeypatch = stage
    monkeypatch.setenv("OPENAI_API_KEY", "key of the test")
    monkeypatch.setenv("OPENAI_API_BASE", f"{service.url}/v1/")
    path = folder / "no number.pdf"
    path.write_bytes(pdf(tuple(line for line in TEXT if "number" not in line)))
    service.answers[CHAT].append(says({"number": "BT-4471", "total": "1.00", "seller": "Somebody else"}))
    return Scene(ocr_extract, {"path": str(path)}, service)


def scan(stage: Stage) -> Scene:
    """A picture, no tesseract, and a service that reads it."""
    from PIL import Image

    service, folder, monkeypatch = stage
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("MINERU_API_TOKEN", "token of the test")
    monkeypatch.setenv("MINERU_API_BASE", f"{service.url}/v4")
    monkeypatch.setattr(mineru, "POLL", 0.01)
    path = folder / "scan.png"
    Image.new("RGB", (40, 40), "white").save(path)
    done = {"state": "done", "full_zip_url": f"{service.url}/result.zip"}
    service.answers[UPLOAD].append(js({"code": 0, "data": {"batch_id": "b1", "file_urls": [f"{service.url}/put"]}}))
    service.answers["PUT /put"].append(Answer())
    service.answers[RESULT] += [
        js({"code": 0, "data": {"extract_result": [{"state": "running"}]}}),
        js({"code": 0, "data": {"extract_result": [done]}}),
    ]
    service.answers["GET /result.zip"].append(Answer(body=archive("\n\n".join(TEXT))))
    return Scene(ocr_extract, {"path": str(path)}, service)


def hook(stage: Stage) -> Scene:
    service = stage[0]
    service.answers["POST /hook"].append(Answer(204, b""))
    payload = {"subject": "Größe", "text": "two\nlines", "webhook": f"{service.url}/hook"}
    return Scene(send_notification, payload, service)


PLACES: list[tuple[Callable[[Stage], Scene], str]] = [
    (chat, CHAT),
    (scan, UPLOAD),
    (scan, "PUT /put"),
    (scan, RESULT),
    (scan, "GET /result.zip"),
    (hook, "POST /hook"),
]
everywhere = pytest.mark.parametrize(
    ("setting", "request_"), PLACES, ids=[f"{setting.__name__}, {request}" for setting, request in PLACES]
)


async def test_a_model_fills_in_what_the_text_lacks_and_nothing_else(stage: Stage, queue: Queue, db: DB) -> None:
    found = await queue.result(await chat(stage).enqueue(queue), timeout=30)
    assert (found["number"], found["total"], found["source"]) == ("BT-4471", "95.40", "llm")
    assert found["seller"] == "Brightwater Tools Ltd"
    assert await db.fetchval("SELECT number FROM invoices.invoice") == "BT-4471"
    [(_, headers, body)] = stage[0].asked
    assert headers["authorization"] == "Bearer key of the test"
    assert "Brightwater Tools Ltd" in json.loads(body)["messages"][1]["content"]


async def test_a_service_reads_a_scan_where_nothing_else_can(stage: Stage, queue: Queue) -> None:
    scene = scan(stage)
    found = await queue.result(await scene.enqueue(queue), timeout=30)
    assert (found["number"], found["date"], found["total"]) == ("BT-4471", "2026-04-14", "95.40")
    requests = [request for request, _, _ in scene.service.asked]
    assert requests == [UPLOAD, "PUT /put", RESULT, RESULT, "GET /result.zip"]
    sent = {request: (headers, body) for request, headers, body in scene.service.asked}
    assert sent[UPLOAD][0]["authorization"] == "Bearer token of the test"
    assert "authorization" not in sent["PUT /put"][0]
    assert sent["PUT /put"][1].startswith(b"\x89PNG")


async def test_a_webhook_gets_subject_and_text(stage: Stage, queue: Queue) -> None:
    assert await queue.result(await hook(stage).enqueue(queue), timeout=60) == {"mail": False, "webhook": True}
    [(_, _, body)] = stage[0].asked
    assert json.loads(body) == {"subject": "Größe", "text": "two\nlines"}


@everywhere
@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (Answer(429, headers={"Retry-After": "1"}), "asks to wait 1 s"),
        (Answer(500), "answered 500"),
        (Answer(how="never"), "does not answer: ReadTimeout"),
        (Answer(how="cut off"), "does not answer: RemoteProtocolError"),
    ],
    ids=["429", "500", "slow", "cut off"],
)
async def test_a_service_in_trouble_is_asked_again(
    stage: Stage, queue: Queue, db: DB, setting: Callable[[Stage], Scene], request_: str, trouble: Answer, why: str
) -> None:
    scene = setting(stage)
    scene.service.answers[request_].insert(0, trouble)
    if trouble.how == "never":
        for module in (llm, mineru, notify):
            stage[2].setattr(module, "TIMEOUT", 1.0)
    job = await scene.enqueue(queue)
    await queue.result(job, timeout=30)
    row = await db.fetchrow("SELECT *, finished_at - enqueued_at AS took FROM workerd.job WHERE id = $1", job)
    assert row is not None
    assert (row["attempt"], row["failures"]) == (2, 1)
    assert why in row["attempts"]
    if trouble.status == 429:
        assert row["took"].total_seconds() >= 1


@everywhere
async def test_a_service_that_refuses_is_not_asked_again(
    stage: Stage, queue: Queue, db: DB, setting: Callable[[Stage], Scene], request_: str
) -> None:
    scene = setting(stage)
    scene.service.answers[request_].insert(0, Answer(404, b"go\naway"))
    assert "refused with status 404: go away" in await failure(scene, queue, db, attempts=1)


async def test_a_webhook_that_has_moved_is_no_success(stage: Stage, queue: Queue, db: DB) -> None:
    scene = hook(stage)
    scene.service.answers["POST /hook"] = [Answer(301, b"moved", {"Location": "/other"})]
    assert "refused with status 301: moved" in await failure(scene, queue, db, attempts=1)


async def test_a_service_that_stays_broken_ends_the_job_with_its_reason(stage: Stage, queue: Queue, db: DB) -> None:
    scene = chat(stage)
    scene.service.answers[CHAT] = [Answer(500)]
    assert "the chat endpoint answered 500" in await failure(scene, queue, db, attempts=4)


async def failure(scene: Scene, queue: Queue, db: DB, attempts: int) -> str:
    """The first line of why a job failed; no invoice was written."""
    job = await scene.enqueue(queue)
    with pytest.raises(JobFailed):
        await queue.result(job, timeout=30)
    row = await db.fetchrow("SELECT attempt, error FROM workerd.job WHERE id = $1", job)
    assert row is not None
    lines = str(row["error"]).splitlines()
    assert row["attempt"] == attempts, lines
    assert await db.fetchval("SELECT to_regclass('invoices.invoice')") is None
    assert attempts > 1 or len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(body=b"<html>welcome</html>"), "not what was asked for: <html>welcome"),
        (js({"choices": []}), "not what was asked for"),
        (js({"choices": [{"message": {"content": None}}]}), "not what was asked for"),
        (says("The number is BT-4471."), "not what was asked for"),
        (says("[1, 2]"), "no JSON object"),
        (says({}), ": number"),
        (says({"number": None}), ": number"),
        (says({"number": " \n "}), ": number"),
        (says({"number": ["BT-4471"]}), ": number"),
        (says({"number": {"value": "BT-4471"}}), ": number"),
        (says({"number": "\0\ud800"}), ": number"),
    ],
)
async def test_rubbish_of_a_model_ends_with_a_reason(
    stage: Stage, queue: Queue, db: DB, answer: Answer, why: str
) -> None:
    scene = chat(stage)
    scene.service.answers[CHAT] = [answer]
    assert why in await failure(scene, queue, db, attempts=1)


def result(**state: Any) -> Answer:
    return js({"code": 0, "data": {"extract_result": [state]}})


@pytest.mark.parametrize(
    ("request_", "answer", "why"),
    [
        (UPLOAD, Answer(body=b"welcome"), "not JSON"),
        (UPLOAD, js({"code": -10002, "msg": "no more pages today"}), "no more pages today"),
        (UPLOAD, js({"code": 0, "data": {"batch_id": "b1", "file_urls": []}}), "no upload address"),
        (RESULT, js({"code": 0, "data": {"extract_result": []}}), "no result"),
        (RESULT, js({"code": 0, "data": {"extract_result": "x"}}), "no result"),
        (RESULT, result(state="failed", err_msg="this is no page"), "cannot read it: this is no page"),
        (RESULT, result(state="done"), "no result"),
        ("GET /result.zip", Answer(body=b"welcome"), "not the archive"),
        ("GET /result.zip", Answer(body=archive("text", "other.md")), "not the archive"),
        ("GET /result.zip", Answer(body=broken(archive("word " * 999))), "not the archive"),
        ("GET /result.zip", Answer(body=archive("nothing")), ": number, date, currency, seller, total"),
    ],
)
async def test_rubbish_of_a_scan_service_ends_with_a_reason(
    stage: Stage, queue: Queue, db: DB, request_: str, answer: Answer, why: str
) -> None:
    scene = scan(stage)
    scene.service.answers[request_] = [answer]
    assert why in await failure(scene, queue, db, attempts=1)
