"""Errors as clients get them: problem details, RFC 9457."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import asyncpg
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from workerd import codec
from workerd.error_text import message_of
from workerd.errors import (
    ConfigError,
    DatabaseError,
    JobError,
    LaneLocked,
    NodeDead,
    NodeError,
    NodeNotFound,
    NotFound,
    TaskError,
)
from workerd.queue.database import CONNECTION_ERRORS

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = {"Retry-After": "1"}  # seconds


class ProblemDetails(BaseModel):
    """What is wrong, and what to do."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is no job 42"}
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = None


class Problem(Exception):
    """Raised where a request cannot be answered; `more` are further members of the answer."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.more = more

    def response(self) -> Response:
        return problem(self.status, self.detail, self.headers, **self.more)


# The first that fits; an error is of the kind that is nearest.
_STATUS: dict[type[Exception], int] = {
    NotFound: 404,
    NodeNotFound: 404,
    NodeDead: 410,
    LaneLocked: 423,
    JobError: 409,
    NodeError: 409,
    TaskError: 422,
    ConfigError: 422,
    DatabaseError: 503,
    asyncpg.DataError: 422,
    asyncpg.ProgramLimitExceededError: 422,
    **dict.fromkeys(CONNECTION_ERRORS, 503),
}


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """The answer to a request that was refused."""
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return Response(codec.dumps(told, "the problem"), status, headers, MEDIA_TYPE)


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Those that a route may give besides its own, for OpenAPI."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "model": ProblemDetails,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
        }
        for status in (*statuses, 401, 403, 422, 429, 503)
    }


def install(app: FastAPI) -> None:
    """Let every error of the app be a problem."""
    app.add_exception_handler(Problem, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for kind in _STATUS:
        app.add_exception_handler(kind, _ours)


async def _told(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


def status_of(error: Exception) -> int:
    """That of an error of ours."""
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


async def _ours(_request: Request, error: Exception) -> Response:
    status = status_of(error)
    return problem(status, message_of(error), RETRY_AFTER if status == HTTPStatus.SERVICE_UNAVAILABLE else None)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [{"where": ".".join(map(str, each["loc"])), "what": each["msg"]} for each in error.errors()]
    first = errors[0]
    return problem(422, f"{first['where']}: {first['what']}", errors=errors)


async def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), dict(error.headers or {}))
