"""Reading requests within limits, and answers that end when their client is gone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sprat.errors import unknown_name
from sprat.server.errors import ApiError, error_body

__all__ = ["EventStream", "body_of", "event", "unless_gone"]

Body = TypeVar("Body", bound=msgspec.Struct)
Result = TypeVar("Result")

_UNKNOWN_FIELD = re.compile("Object contains unknown field `(?P<name>[^`]*)`")
_CONVERSATION = frozenset({"messages", "input", "content"})  # lists of what a client may send back as it came
_BODY_TIMEOUT_S = 30.0  # a client that sends its request more slowly is not waited for


async def body_of(request: Request, kind: type[Body]) -> Body:
    """The JSON body of a request, checked.

    Raises:
        ApiError: it is larger than the limit, or arrives too slowly.
        msgspec.ValidationError: it is no ``kind``; of an unknown field, an ApiError with the nearest ones.
    """
    limit: int = request.app.state.settings.max_body_bytes
    announced = request.headers.get("content-length", "")  # the HTTP library refuses values that are not numbers
    if announced.isdecimal() and int(announced) > limit:  # before it is waited for
        raise _too_large(limit)
    received = bytearray()
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            async for part in request.stream():
                received += part
                if len(received) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise ApiError(408, f"the request did not arrive within {_BODY_TIMEOUT_S:.0f} s") from None
    try:
        return msgspec.convert(_without_nulls(msgspec.json.decode(received)), kind, str_keys=True)
    except RecursionError:
        raise ApiError(400, "the request's JSON is nested too deeply") from None
    except msgspec.ValidationError as error:
        if found := _UNKNOWN_FIELD.fullmatch(str(error)):  # of the request itself; of what is inside, the path is told
            name, known = found["name"], (field.name for field in msgspec.structs.fields(kind))
            raise ApiError(400, f"invalid request: {unknown_name('field', name, known)}", param=name) from None
        raise


def _without_nulls(body: Any) -> Any:
    """``body`` without fields that are null, which says no more than leaving them out.

    A client that sends a reply back as the next turn's history (``message.model_dump()``) sends all fields that its
    version knows of a reply, and null for most.
    """
    if isinstance(body, list):
        return [_without_nulls(part) for part in body]
    if not isinstance(body, dict):
        return body
    given = {name: value for name, value in body.items() if value is not None}
    return {name: _without_nulls(value) if name in _CONVERSATION else value for name, value in given.items()}


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the request has over {limit:,} bytes, which is the limit", code="request_too_large")


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of ``work``, which is cancelled when the client closes its connection.

    Raises:
        ClientDisconnect: it did.
    """
    return await _unless(_gone(request.receive), work)


async def _unless(gone: Awaitable[None], work: Coroutine[Any, Any, Result]) -> Result:
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(gone)
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        watching.cancel()
        if not working.done():
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event(data: object, name: str = "") -> bytes:
    """One server-sent event with JSON data."""
    return b"".join([f"event: {name}\n".encode() if name else b"", b"data: ", msgspec.json.encode(data), b"\n\n"])


class EventStream(Response):
    """A response whose parts are sent as they are made; one that fails ends with an event that says why.

    Args:
        parts: bytes to send; closed at the end, and when the client is gone.
        media_type: of the response.
        is_event: an error is reported as an event; otherwise as a line of JSON.
    """

    def __init__(
        self, parts: AsyncGenerator[bytes, None], media_type: str = "text/event-stream", *, is_event: bool = True
    ) -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._parts, self._is_event = parts, is_event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, unless the client is gone."""
        with suppress(ClientDisconnect):
            await _unless(_gone(receive), self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with aclosing(self._parts) as parts:
                async for part in parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except Exception as error:  # noqa: BLE001  # the status is sent: the client is told in the stream
            body = error_body(error)
            told = event(body) if self._is_event else msgspec.json.encode({"error": body["error"]["message"]}) + b"\n"
            await send({"type": "http.response.body", "body": told, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
