"""``GET /openapi.json``: the routes, requests and errors as an OpenAPI document, from the types that check them."""

from __future__ import annotations

import functools
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sprat.server.api.chat import ChatRequest
from sprat.server.api.completions import CompletionRequest
from sprat.server.api.embeddings import EmbeddingRequest
from sprat.server.api.ollama import OllamaChat, OllamaShow
from sprat.server.api.responses import ResponsesRequest

__all__ = ["document", "openapi"]

_POSTS: dict[str, tuple[str, type, str]] = {
    "/v1/chat/completions": ("Reply to a conversation", ChatRequest, "text/event-stream"),
    "/v1/completions": ("Continue a prompt", CompletionRequest, "text/event-stream"),
    "/v1/responses": ("Reply to a conversation, as items", ResponsesRequest, "text/event-stream"),
    "/v1/embeddings": ("A vector for each text", EmbeddingRequest, ""),
    "/api/chat": ("Reply to a conversation, as Ollama does", OllamaChat, "application/x-ndjson"),
    "/api/show": ("What a model can do, as Ollama says it", OllamaShow, ""),
}
_GETS = {
    "/v1/models": ("The models", "application/json"),
    "/v1/models/{model}": ("One model", "application/json"),
    "/api/tags": ("The models, as Ollama lists them", "application/json"),
    "/api/version": ("The version of sprat", "application/json"),
    "/health": ("Whether the server answers", "application/json"),
    "/metrics": ("Counters in Prometheus' text format", "text/plain"),
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_OLLAMA_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
# The schema of a stream of events describes one event: OpenAPI before 3.2 has no other place for it.
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {"event": {"type": "string"}, "data": {"type": "string", "description": "JSON, or [DONE]"}},
}
_TEXT = {"type": "string"}
_NOT_GIVEN = {"type": "null"}  # a field that is null counts as left out, of whatever name
_RESPONSES = {"application/json": {"type": "object"}, "text/event-stream": _EVENT}


async def openapi(_request: Request) -> Response:
    """The document."""
    return JSONResponse(document())


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI document of the server."""
    requests = [kind for _, kind, _ in _POSTS.values()]
    schemas, components = msgspec.json.schema_components(requests, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {
        path: {"post": _operation(path, title, ["application/json", *([stream] if stream else [])], body=schema)}
        for (path, (title, _, stream)), schema in zip(_POSTS.items(), schemas, strict=True)
    }
    for path, (title, media) in _GETS.items():
        paths[path] = {"get": _operation(path, title, [media])}
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    paths["/v1/models/{model}"]["get"]["parameters"] = [name]
    for component in components.values():
        if component.get("additionalProperties") is False:
            component["additionalProperties"] = _NOT_GIVEN
    return {
        "openapi": "3.1.0",
        "info": {"title": "sprat", "version": version("sprat"), "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR, "OllamaError": _OLLAMA_ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(path: str, title: str, media: list[str], body: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {kind: {"schema": _RESPONSES.get(kind, _TEXT)} for kind in media}
    kind = {"$ref": f"#/components/schemas/{'OllamaError' if path.startswith('/api/') else 'Error'}"}
    error = {"description": "Why not", "content": {"application/json": {"schema": kind}}}
    operation: dict[str, Any] = {
        "summary": title,
        "responses": {"200": {"description": title, "content": content}, "default": error},
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation
