"""Tasks that are seen in traces."""

from __future__ import annotations

from opentelemetry import trace

from workerd import Call, Queue, task

tracer = trace.get_tracer("shop")


@task(queue="orders")
async def order(how: str) -> int:
    """Enqueues a job in a span of its own."""
    with tracer.start_as_current_span("look up"):
        return await ship.enqueue(how)


@task(queue="shipping", retry=0)
async def ship(how: str) -> str:
    if how == "raise":
        raise ValueError("order 7 is wrong")
    return how


@task
def in_thread() -> int:
    with tracer.start_as_current_span("look up"):
        return ship.enqueue_sync("thread")


@task(cpu=True)
def in_child() -> int:
    with tracer.start_as_current_span("compute"):
        return ship.enqueue_sync("child")


@task(sensitive=True, retry=0)
async def secretly(card: str) -> None:
    raise ValueError(f"card {card} is refused")


@task
async def told(job_id: int, task: str, payload: dict[str, str], error: str, attempt: int) -> None:
    pass


@task(on_failure=told, retry=0)
async def noted() -> None:
    raise ValueError("no")


@task
async def many_ways(dsn: str) -> None:
    """Enqueues in all ways that a handler has."""
    async with Queue.connect(dsn) as queue:
        await queue.enqueue("ship", {"how": "by name"})
        await queue.enqueue("ship", {"how": "later"}, delay="1h", key="later")
        await queue.enqueue_many("ship", [{"how": "many"}] * 2)
        await queue.enqueue_many("ship", [{"how": "by copy"}] * 1000)
        await queue.chain(Call(ship, {"how": "first"}), Call(ship, {"how": "second"}))
        async with queue.connection() as connection:
            await ship.enqueue("in a transaction", connection=connection)
