"""The ASGI application: routes, error responses, and the life of the models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from sprat.server import openapi, page
from sprat.server.api import chat, completions, embeddings, models, ollama, responses
from sprat.server.errors import error_response
from sprat.server.guard import Guard
from sprat.server.metrics import Metrics
from sprat.server.model_pool import ModelPool
from sprat.server.settings import ServerSettings

__all__ = ["ROUTES", "application"]

Endpoint = Callable[[Request], Awaitable[Response]]

ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    ("GET", "/v1/models", models.models),
    ("GET", "/v1/models/{model:path}", models.model),
    ("POST", "/v1/chat/completions", chat.chat_completions),
    ("POST", "/v1/completions", completions.completions),
    ("POST", "/v1/responses", responses.responses),
    ("POST", "/v1/embeddings", embeddings.embeddings),
    ("POST", "/api/chat", ollama.chat),
    ("GET", "/api/tags", ollama.tags),
    ("POST", "/api/show", ollama.show),
    ("GET", "/api/version", ollama.told_version),
    ("GET", "/openapi.json", openapi.openapi),
    ("GET", "/", page.page),
    ("GET", "/health", models.health),
    ("GET", "/metrics", models.metrics),
)


def application(model_paths: Mapping[str, Path], settings: ServerSettings) -> Starlette:
    """The server's application.

    Args:
        model_paths: the models by name.
        settings: of the server.
    """
    app = Starlette(
        routes=[Route(path, _counted(path, endpoint), methods=[method]) for method, path, endpoint in ROUTES],
        middleware=[Middleware(Guard, settings=settings)],
        exception_handlers={HTTPException: error_response, Exception: error_response},
        lifespan=_life,
    )
    app.state.settings = settings
    app.state.pool = ModelPool(model_paths, settings)
    app.state.metrics = Metrics(app.state.pool.models.values())
    return app


@asynccontextmanager
async def _life(app: Starlette) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await app.state.pool.close()


def _counted(path: str, endpoint: Endpoint) -> Endpoint:
    """``endpoint``, its errors as responses, and every response counted."""

    async def counted(request: Request) -> Response:
        try:
            response = await endpoint(request)
        except ClientDisconnect:
            response = Response(status_code=499)  # nobody reads it; nginx's number in the metrics
        except Exception as error:  # noqa: BLE001  # every error has a response
            response = await error_response(request, error)
        request.app.state.metrics.request(path, response.status_code)
        return response

    return counted
