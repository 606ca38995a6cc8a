"""``GET /v1/models``, ``/health`` and ``/metrics``: what the server offers, and how it is."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sprat.server.errors import ApiError
from sprat.server.model_pool import ModelPool, ServedModel

__all__ = ["health", "metrics", "model", "models"]


async def models(request: Request) -> Response:
    """All models."""
    pool: ModelPool = request.app.state.pool
    return JSONResponse({"object": "list", "data": [_described(model) for model in pool.models.values()]})


async def model(request: Request) -> Response:
    """One model."""
    pool: ModelPool = request.app.state.pool
    name = request.path_params["model"]
    if name not in pool.models:
        raise ApiError(404, f"the model {name!r} does not exist", param="model", code="model_not_found")
    return JSONResponse(_described(pool.models[name]))


async def health(_request: Request) -> Response:
    """Whether the server answers; for watchdogs, without a key."""
    return JSONResponse({"status": "ok"})


async def metrics(request: Request) -> Response:
    """Counters in Prometheus' text format."""
    return Response(request.app.state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _described(model: ServedModel) -> dict[str, Any]:
    described = {"id": model.name, "object": "model", "created": model.created, "owned_by": "sprat"}
    context = model.engine.engine.context if model.engine else None
    return {**described, "loaded": model.engine is not None, "context": context}
