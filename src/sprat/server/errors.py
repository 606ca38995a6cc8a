"""Errors as OpenAI's API reports them: ``{"error": {"message", "type", "param", "code"}}`` and a status."""

from __future__ import annotations

import logging
import re
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from sprat.errors import DoesNotFitError, InputError, QueueFullError, SpratError

__all__ = ["ApiError", "error_body", "error_response", "from_exception", "told_at"]

_LOG = logging.getLogger("sprat.server")
_RETRY_AFTER_S = 1  # an answer of a small model takes seconds, and a slot becomes free at each end
_NO_ROUTE = (404, 405)
_FIELD = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$|unknown field `(?P<unknown>[^`]*)`")

_PART = re.compile(r"\bcontent\[\d+\]")


class ApiError(Exception):
    """An error response.

    Args:
        status: of HTTP.
        message: for people.
        kind: OpenAI's ``type``.
        param: the field of the request.
        code: for programs.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def from_exception(error: Exception) -> ApiError:
    """The error response for ``error``."""
    match error:
        case ApiError():
            told = error
        case msgspec.ValidationError() | msgspec.DecodeError():
            told = _invalid_body(error)
        case QueueFullError():
            told = _later(429, error, kind="rate_limit_error", code="queue_full")
        case DoesNotFitError():
            told = _later(503, error, kind="server_error", code="out_of_memory")
        case InputError():
            told = ApiError(400, str(error))
        case SpratError():
            told = ApiError(500, str(error), kind="server_error")
        case HTTPException():
            told = ApiError(error.status_code, error.detail, headers=dict(error.headers or {}))
        case _:
            _LOG.exception("a request failed", exc_info=error)
            told = ApiError(500, "the server failed; its log has the reason", kind="server_error")
    return told


def _invalid_body(error: Exception) -> ApiError:
    found = _FIELD.search(str(error))
    param = found and (found["path"] or found["unknown"])
    hint = " (a model here reads text only)" if _PART.search(str(error)) else ""
    return ApiError(400, f"invalid request: {error}{hint}", param=param or None)


def _later(status: int, error: Exception, *, kind: str, code: str) -> ApiError:
    return ApiError(status, str(error), kind=kind, code=code, headers={"Retry-After": str(_RETRY_AFTER_S)})


def error_body(error: Exception) -> dict[str, Any]:
    """The JSON of ``error``."""
    return from_exception(error).body


async def error_response(request: Request, error: Exception) -> JSONResponse:
    """The response for ``error``."""
    if isinstance(error, HTTPException) and error.status_code in _NO_ROUTE:
        what = f"there is no {request.method} {request.url.path:.200}; /openapi.json lists what there is"
        error = ApiError(error.status_code, what, code="not_found", headers=dict(error.headers or {}))
    return told_at(request.url.path, from_exception(error))


def told_at(path: str, error: ApiError) -> JSONResponse:
    """The response for ``error`` at a path: under ``/api`` as Ollama's clients know it."""
    body = {"error": str(error)} if path.startswith("/api/") else error.body
    return JSONResponse(body, error.status, error.headers)
