"""Bodies of requests: JSON, read without loss, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request

from workerd import codec
from workerd.errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.responses import Response


class ExactRequest(Request):
    """One whose JSON is what its client has written: no NaN, no number that is read as another one."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            try:
                self._json = codec.read(await self.body())
            except PayloadError as error:
                said = str(error)
                raise HTTPException(
                    422, f"the body {said}" if said.startswith("has ") else f"the body is {said}"
                ) from error
        return self._json


class ExactRoute(APIRoute):
    """A route whose body is read so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_exactly(request: Request) -> Response:
            return await handle(ExactRequest(request.scope, request.receive))

        return handle_exactly
