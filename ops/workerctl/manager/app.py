"""The application: all routes, behind guards, with one way to refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI

from workerctl.manager import health, jobs, nodes, problems, queues, remote, schedules, stats
from workerctl.manager.access import Access, Reader
from workerctl.manager.guards import Guards
from workerctl.manager.page import routes as page
from workerctl.manager.page import views
from workerctl.manager.page.hub import Hub
from workerctl.manager.page.once import Once
from workerctl.manager.reach import Reach
from workerd import __version__

if TYPE_CHECKING:
    from workerd.queue.client import Queue


def create_app(queue: Queue, direct: str | None = None) -> FastAPI:
    """The manager of this queue, as an ASGI application. `direct`: the address past a pooler, where there is one."""
    app = FastAPI(title="workerd", version=__version__, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.queue = queue
    app.state.access = Access(queue)
    app.state.reach = Reach(direct or queue.dsn)
    app.state.owners = {}  # the tokens of nodes
    app.add_middleware(Guards)
    problems.install(app)
    api = APIRouter(prefix="/api/v1")
    for part in (jobs, queues, nodes, remote, schedules, stats):
        api.include_router(part.router)
    app.include_router(api)
    app.include_router(health.router)
    app.state.once = Once(queue)
    app.state.hub = Hub(views.Looks(queue))
    app.include_router(page.router)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(_token: Reader) -> dict[str, Any]:
        return app.openapi()

    return app
