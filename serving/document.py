"""The OpenAPI document: FastAPI's, with what it cannot know of keys, bodies that we read ourselves, and proxies."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from serving.access import scope_needed

SERVERS = [{"url": ".", "description": "Beside this document, whatever a proxy puts before it."}]
_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key (`mulan keys create`). Where there is none, the endpoint serves its own machine.",
}
_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "What the caller calls this request; made up where it says nothing, and on every answer.",
    "schema": {"type": "string", "maxLength": 128, "pattern": "^[!-~]+$"},
}


def operation_id(route: APIRoute) -> str:
    """What generated clients call an operation: the name of our function."""
    return route.name


def describe_all(api: FastAPI) -> None:
    """Let the API's document say all of it, in names that generated clients can use."""
    as_made = api.openapi

    def document() -> dict[str, Any]:
        if api.openapi_schema is None:
            api.openapi_schema = _complete(as_made())
        return api.openapi_schema

    api.openapi = document  # type: ignore[method-assign]  # FastAPI's way to change it

    async def serve_document(request: Request) -> JSONResponse:
        prefix = request.state.prefix  # written out where it is known: not all readers resolve "." as OpenAPI says
        return JSONResponse(document() | ({"servers": [SERVERS[0] | {"url": prefix}]} if prefix else {}))

    api.add_route("/openapi.json", serve_document, include_in_schema=False)


def _complete(made: dict[str, Any]) -> dict[str, Any]:
    components = made.setdefault("components", {})
    components["securitySchemes"] = {"key": _KEY}
    made["security"] = [{"key": []}]
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            if scope_needed(method.upper(), path) is None:
                operation["security"] = []
            operation.setdefault("parameters", []).append(_REQUEST_ID)
            for content in operation.get("requestBody", {}).get("content", {}).values():
                content["schema"] = _lift(content["schema"], components["schemas"])
    return made


def _lift(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """Put a body's schema among the components, which have names; FastAPI does so for what it reads itself alone."""
    schema = dict(schema)
    components.update(schema.pop("$defs", {}))
    components[schema["title"]] = schema
    return {"$ref": f"#/components/schemas/{schema['title']}"}
