"""Routes for probes and for Prometheus."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Response

from workerctl.manager.access import Reader
from workerctl.manager.base import TheQueue
from workerctl.manager.models import Health
from workerctl.manager.problems import answers
from workerd.errors import DatabaseError
from workerd.queue import inspect
from workerd.queue.database import CONNECTION_ERRORS

PATIENCE = 2.0  # seconds that the database may take to answer a probe

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def live() -> Health:
    """Whether this process works."""
    return Health(live=True, ready=True)


@router.get("/readyz", responses={503: {"model": Health}})
async def ready(home: TheQueue, response: Response) -> Health:
    """Whether the database answers."""
    try:
        async with asyncio.timeout(PATIENCE), home.connection() as connection:
            await connection.fetchval("SELECT 1")
    except (DatabaseError, *CONNECTION_ERRORS) as error:
        response.status_code = 503
        return Health(live=True, ready=False, reason=str(error) or "the database does not answer")
    return Health(live=True, ready=True)


@router.get("/metrics", response_class=Response, responses=answers())
async def metrics(home: TheQueue, _token: Reader, accept: Annotated[str, Header()] = "") -> Response:
    """Depths of queues and the nodes that live, for Prometheus."""
    from prometheus_client import CollectorRegistry, Gauge
    from prometheus_client.exposition import choose_encoder

    async with home.connection() as connection:
        queues, nodes = await inspect.queues(connection), await inspect.nodes(connection)
    registry = CollectorRegistry()
    jobs = Gauge("workerd_queue_jobs", "Unfinished jobs", ["queue", "state"], registry=registry)
    oldest = Gauge("workerd_queue_oldest_seconds", "Age of the oldest queued job", ["queue"], registry=registry)
    living = Gauge("workerd_nodes", "Nodes by their state", ["state"], registry=registry)
    for each in queues:
        for state in ("queued", "scheduled", "blocked", "running"):
            jobs.labels(each["queue"], state).set(each[state])
        oldest.labels(each["queue"]).set(each["oldest_queued_s"] or 0.0)
    for state in ("alive", "draining", "dead"):
        living.labels(state).set(sum(node["state"] == state for node in nodes))
    encode, kind = choose_encoder(accept)
    return Response(encode(registry), media_type=kind)
