"""Every route of the manager, from its OpenAPI description."""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from fastapi.routing import APIRoute

from tests.reference.page import code, page, table
from workerctl.manager.app import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workerd import Queue

INTRODUCTION = (
    "What is sent and answered, and which [scope](../manager.md#tokens) of a token may. Refusals are problem details (RFC 9457): 401 "
    "without a valid token, 403 without the scope, 422 for what is not as described, 429 for too many requests, 503 while the database "
    "does not answer, and what is said below. The manager itself tells the same as `/openapi.json`. A name followed by ? may be left out."
)
ALWAYS = ("401", "403", "422", "429", "503")


def text() -> str:
    app = create_app(cast("Queue", SimpleNamespace(dsn="")))  # a description asks no database
    described = app.openapi()
    scopes = dict(_scopes(app))
    sections: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            who = scopes[method.upper(), path.removeprefix("/api/v1")]
            sections.setdefault(operation["tags"][0], []).append(_operation(method.upper(), path, operation, who))
    models = described["components"]["schemas"]
    return page(
        "HTTP API",
        INTRODUCTION,
        *("\n\n".join((f"## {tag.capitalize()}", *parts)) for tag, parts in sections.items()),
        "## Models",
        *(_model(name, model) for name, model in models.items()),
    )


def _scopes(app: Any) -> Iterator[tuple[tuple[str, str], tuple[str, ...]]]:
    """Method and path of each route, without the prefix of the API, and who may."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                yield (method, route.path), _wanted(route.dependant)
        elif (inner := getattr(route, "original_router", None)) is not None:
            yield from _scopes(inner)


def _wanted(dependant: Any) -> tuple[str, ...]:
    if inspect.isfunction(dependant.call) and "wanted" in (given := inspect.getclosurevars(dependant.call).nonlocals):
        return cast("tuple[str, ...]", given["wanted"])
    return next((found for each in dependant.dependencies if (found := _wanted(each))), ())


def _operation(method: str, path: str, operation: dict[str, Any], scopes: tuple[str, ...]) -> str:
    who = " or ".join(map(code, scopes)) or "everybody"
    lines = [f"### {method} {path}", f"{operation['description']} For {who}."]
    asked = [
        (
            code(each["name"] + ("" if each["required"] else "?")),
            each["in"],
            _type(each["schema"]),
            each.get("description"),
        )
        for each in operation.get("parameters", ())
    ]
    if asked:
        lines.append(table(("parameter", "in", "type", "what"), asked))
    if "requestBody" in operation:
        lines.append(f"Body: {_content(operation['requestBody'])}")
    lines.append(" ".join(_answers(operation["responses"])))
    return "\n\n".join(lines)


def _answers(responses: dict[str, Any]) -> Iterator[str]:
    """What each status brings; refusals are alike in all routes."""
    problems = [status for status, answer in responses.items() if "ProblemDetails" in str(answer)]
    rest = [
        f"{status}{', ' + _content(answer) if answer.get('content') else ''}"
        for status, answer in responses.items()
        if status not in problems
    ]
    yield f"Answers {'; '.join(rest)}."
    if refusals := [status for status in problems if status not in ALWAYS]:
        yield f"Refuses with {', '.join(refusals)}."


def _content(body: dict[str, Any]) -> str:
    return _type(next(iter(body["content"].values())).get("schema", {}))


def _model(name: str, model: dict[str, Any]) -> str:
    lines = [f"### {name}"]
    if "description" in model:
        lines.append(model["description"])
    if "properties" in model:
        needed = model.get("required", ())
        rows = [
            (code(field + ("" if field in needed else "?")), _type(schema), schema.get("description") or _inner(schema))
            for field, schema in model["properties"].items()
        ]
        lines.append(table(("field", "type", "what"), rows))
    if "example" in model:
        lines.append(f"For example: {code(json.dumps(model['example'], ensure_ascii=False))}")
    return "\n\n".join(lines)


def _inner(schema: dict[str, Any]) -> str | None:
    """What is said of a field that may be null."""
    return next((each["description"] for each in schema.get("anyOf", ()) if "description" in each), None)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(map(code, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = {"date-time": "time", "uuid": "uuid"}.get(schema.get("format", ""), schema.get("type", "anything"))
    return str(kind) + _limits(schema)


def _limits(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and high is None:
        return ""
    return f" {low if low is not None else ''}…{high if high is not None else ''}".replace(".0", "")
