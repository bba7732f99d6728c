"""Routes of the page: each view as a whole, its stream of news, and the forms that change something."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, StreamingResponse
from fastapi.routing import APIRoute
from pydantic import ValidationError

from workerctl.manager import jobs, nodes, queues, schedules
from workerctl.manager.base import TheQueue
from workerctl.manager.models import Bulk, JobFilter, Scale
from workerctl.manager.page import reference, render, views
from workerctl.manager.page.visitor import COOKIE, NotSignedIn, Operator, Reader, admit, here, local
from workerctl.manager.problems import Problem, status_of
from workerd.errors import WorkerdError

FILES = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
RETRY = 2000  # milliseconds after which a browser follows a stream anew


class PageRoute(APIRoute):
    """What is refused is told as a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await answer(request)
            except NotSignedIn as stranger:
                return stranger.answer
            except Problem as problem:
                return _refused(problem.status, problem.detail)
            except WorkerdError as error:
                return _refused(status_of(error), str(error))

        return handle


router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/static/{name}")
async def static(name: str) -> Response:
    if name not in FILES:
        raise Problem(404, "there is no such page")
    return FileResponse(render.STATIC / name, media_type=FILES[name])


@router.get("/login")
async def login(next: str = "/") -> Response:
    return HTMLResponse(render.page("login", None, next=local(next), wrong=False))


@router.post("/login")
async def log_in(request: Request, token: Annotated[str, Form()], next: Annotated[str, Form()] = "/") -> Response:
    try:
        await request.app.state.access.check(token.strip(), ("read",))
    except Problem as problem:
        text = render.page("login", None, next=local(next), wrong=problem.detail)
        return HTMLResponse(text, problem.status)
    answer = RedirectResponse(local(next), 303)
    admit(request, answer, token.strip())
    return answer


@router.get("/login/{secret}")
async def log_in_once(request: Request, secret: str) -> Response:
    token = await request.app.state.once.take(secret)
    if token is None:
        raise Problem(
            401,
            "this address was used before, or is not valid: the manager prints a new one when it is started on a terminal",
        )
    request.app.state.access.forget()
    answer = RedirectResponse("/", 303)
    admit(request, answer, token)
    return answer


@router.post("/logout")
async def log_out(_visitor: Reader) -> Response:
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


@router.get("/docs")
async def docs(request: Request, visitor: Reader) -> Response:
    """The HTTP API, for people."""
    told = request.app.openapi()
    text = render.page("reference", visitor, routes=reference.routes(told), schemas=reference.schemas(told))
    return HTMLResponse(text)


@router.get("/docs/openapi.json")
async def description(request: Request, _visitor: Reader) -> Response:
    """The same for programs, to be looked at in a browser."""
    return Response(orjson.dumps(request.app.openapi()), media_type="application/json")


@router.get("/events")
async def events(request: Request, visitor: Reader, view: Annotated[str, Query(max_length=2000)]) -> Response:
    """News of a view: each a piece of the page, as JSON text, in place of the one before."""
    views.resolve(view)
    return StreamingResponse(_told(request, visitor, view), media_type="text/event-stream")


async def _told(request: Request, visitor: Reader, view: str) -> AsyncIterator[bytes]:
    yield b"retry: %d\n\n" % RETRY
    async for text in request.app.state.hub.follow(view, visitor.may_operate):
        try:
            await request.app.state.access.check(request.cookies.get(COOKIE), ("read",))
        except Problem:
            return
        yield b": here\n\n" if text is None else b"data: %s\n\n" % orjson.dumps(text)


async def _show(request: Request, home: TheQueue, visitor: Reader) -> Response:
    address = here(request)
    view, query = views.resolve(address)
    async with home.connection() as connection:
        values = await view.load(connection, query, visitor.may_operate)
    return HTMLResponse(render.page(view.template, visitor, here=address, **values))


for _path in (
    "/",
    "/jobs",
    "/jobs/{id}",
    "/queues",
    "/queues/{name:path}/purge",
    "/nodes",
    "/nodes/{name:path}",
    "/schedules",
):
    router.add_api_route(_path, _show, methods=["GET"])


@router.post("/jobs/bulk")
async def bulk(request: Request, home: TheQueue, visitor: Operator) -> Response:
    """First without a number: it is counted and asked for; then with it."""
    form = {name: str(value) for name, value in (await request.form()).items()}
    filters = {name: form[name] for name in views.FILTERS if form.get(name)}
    try:
        wanted = Bulk.model_validate(
            {"action": form.get("action"), "filter": JobFilter(**filters), "expected": form.get("expected") or None}  # type: ignore[arg-type]
        )
    except ValidationError as error:
        raise Problem(422, error.errors()[0]["msg"]) from error
    try:
        done = await jobs.bulk(home, visitor.token, wanted)
    except Problem as problem:
        if problem.status != 409:
            raise
        matched = problem.more["matched"]
        return HTMLResponse(_count(visitor, wanted, filters, matched, changed=True), 409)
    if wanted.expected is None:
        return HTMLResponse(_count(visitor, wanted, filters, done.matched, changed=False))
    return HTMLResponse(render.page("done", visitor, action=wanted.action, done=done, filters=filters))


def _count(visitor: Operator, wanted: Bulk, filters: dict[str, str], matched: int, *, changed: bool) -> str:
    return render.page("count", visitor, action=wanted.action, matched=matched, filters=filters, changed=changed)


@router.post("/jobs/{job_id}/{action}")
async def act(home: TheQueue, visitor: Operator, job_id: int, action: str) -> Response:
    match action:
        case "retry":
            await jobs.retry(home, visitor.token, job_id)
        case "cancel":
            await jobs.cancel(home, visitor.token, job_id)
        case "delete":
            await jobs.delete(home, visitor.token, job_id)
            return RedirectResponse("/jobs", 303)
        case _:
            raise Problem(404, "there is no such page")
    return RedirectResponse(f"/jobs/{job_id}", 303)


@router.post("/queues/{name:path}/{action}")
async def on_queue(home: TheQueue, visitor: Operator, name: str, action: str) -> Response:
    actions = {"pause": queues.pause, "resume": queues.resume, "purge": queues.purge}
    return await _do(actions, action, home, visitor, name, "/queues")


@router.post("/nodes/{name:path}/scale")
async def scale(request: Request, home: TheQueue, visitor: Operator, name: str) -> Response:
    given = str((await request.form()).get("workers", ""))
    try:
        wanted = Scale(workers=given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise Problem(422, f"workers is {given[:20]!r}: {error.errors()[0]['msg']}") from error
    await nodes.scale(home, visitor.token, name, wanted, Response())
    return RedirectResponse(f"/nodes/{name}", 303)


@router.post("/nodes/{name:path}/drain")
async def drain(home: TheQueue, visitor: Operator, name: str) -> Response:
    await nodes.drain(home, visitor.token, name, Response())
    return RedirectResponse("/nodes", 303)


@router.post("/schedules/{name:path}/{action}")
async def on_schedule(home: TheQueue, visitor: Operator, name: str, action: str) -> Response:
    actions = {"run": schedules.run, "pause": schedules.pause, "resume": schedules.resume}
    return await _do(actions, action, home, visitor, name, "/schedules")


async def _do(
    actions: dict[str, Callable[..., Coroutine[Any, Any, Any]]],
    action: str,
    home: TheQueue,
    visitor: Operator,
    name: str,
    back: str,
) -> Response:
    if action not in actions:
        raise Problem(404, "there is no such page")
    await actions[action](home, visitor.token, name)
    return RedirectResponse(back, 303)


def _refused(status: int, detail: str) -> Response:
    return HTMLResponse(render.page("refused", None, status=status, detail=detail), status)
