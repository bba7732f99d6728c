"""The HTTP API as people read it, from its OpenAPI description."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def routes(openapi: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Each operation with its parameters, what it takes and what it answers, by the tag under which it stands."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            tag = operation.get("tags", ["other"])[0]
            found.setdefault(tag, []).append(
                {
                    "method": method.upper(),
                    "path": path,
                    "text": operation.get("description", operation.get("summary", "")),
                    "parameters": [_parameter(each) for each in operation.get("parameters", [])],
                    "takes": list(_kinds(operation.get("requestBody", {}))),
                    "answers": [
                        {"status": status, "text": answer["description"], "kinds": list(_kinds(answer))}
                        for status, answer in operation["responses"].items()
                    ],
                }
            )
    return found


def schemas(openapi: dict[str, Any]) -> list[dict[str, Any]]:
    """What goes in and out: each kind with its fields."""
    return [
        {
            "name": name,
            "text": schema.get("description", ""),
            "example": schema.get("example"),
            "fields": [
                {
                    "name": field,
                    "kind": _kind(what),
                    "text": what.get("description", ""),
                    "needed": field in schema.get("required", []),
                }
                for field, what in schema.get("properties", {}).items()
            ],
        }
        for name, schema in sorted(openapi["components"]["schemas"].items())
    ]


def _parameter(given: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": given["name"],
        "place": given["in"],
        "kind": _kind(given["schema"]),
        "text": given.get("description", ""),
        "needed": given.get("required", False),
    }


def _kinds(body: dict[str, Any]) -> Iterator[str]:
    for content in body.get("content", {}).values():
        if "schema" in content:
            yield _kind(content["schema"])


def _kind(schema: dict[str, Any]) -> str:
    """A type in words: `JobSummary`, `list of integer`, `string or null`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    several = schema.get("anyOf") or schema.get("oneOf")
    if several:
        return " or ".join(_kind(each) for each in several)
    if "enum" in schema or "const" in schema:
        return " or ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("format", schema.get("type", "anything")))
