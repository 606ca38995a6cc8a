"""``Guard``: who may send requests. Outermost of the application, so that nothing is read of those who may not."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sprat.server.errors import ApiError, told_at
from sprat.server.settings import ServerSettings, is_loopback

__all__ = ["Guard"]

_OPEN = frozenset({"/", "/health"})  # the page, which holds no data and asks for the key; watchdogs
_PREFLIGHT_S = "600"


class Guard:
    """Checks each request's key, host and origin.

    A page of another site that the user's browser shows may send requests to a loopback address, also under a name of
    its own (DNS rebinding): the first is refused by its ``Origin``, the second by its ``Host``.

    Args:
        app: gets what is let in.
        settings: of the server.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if (refusal := self._refusal(scope["path"], scope["method"], headers)) is not None:
            await told_at(scope["path"], refusal)(scope, receive, send)
        elif scope["method"] == "OPTIONS" and origin and "access-control-request-method" in headers:
            await JSONResponse(None, headers=_allowing(origin))(scope, receive, send)
        else:
            await self._app(scope, receive, _with_headers(send, origin))

    def _refusal(self, path: str, method: str, headers: Headers) -> ApiError | None:
        key, host, origin = self._settings.api_key, headers.get("host", ""), headers.get("origin")
        if key is None and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return ApiError(403, f"the host {host!r} is not this machine's loopback address", code="forbidden_host")
        if origin is not None and origin not in self._settings.origins and urlsplit(origin).netloc != host:
            return ApiError(
                403,
                f"pages of {origin} may not use this server; --origin {origin} allows them",
                code="forbidden_origin",
            )
        if key is None or path in _OPEN or method == "OPTIONS":
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.casefold() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode()):
            return None
        message = "the API key is missing or wrong: send Authorization: Bearer KEY"
        return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _allowing(origin: str) -> dict[str, str]:
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Headers": "*, Authorization",
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Max-Age": _PREFLIGHT_S,
        "Vary": "Origin",
    }


def _with_headers(send: Send, origin: str | None) -> Send:
    """Add what lets the page of an allowed origin read the response."""
    if origin is None:
        return send

    async def sending(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            added = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
            pairs = [(name.lower().encode(), value.encode()) for name, value in added.items()]
            message = {**message, "headers": [*message["headers"], *pairs]}  # type: ignore[misc]  # a list of pairs
        await send(message)

    return sending  # type: ignore[return-value]  # of Starlette's MutableMapping
