"""The driver of ``make soak`` for ``sprat serve``: a process of its own, and clients that behave badly.

Clients read whole answers, hang up in the middle or before the first byte, send what is no request, and come twenty at
a time. A refusal (status 4xx, or 503 when a limit is reached) counts as an error of sprat's; a status of 500, a hang or
a closed connection is a finding.
"""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from sprat.errors import SpratError

__all__ = ["RefusedError", "ServerDriver"]

_PATIENCE_S = 120  # after which a request hangs
_REFUSALS = frozenset({400, 413, 422, 429, 503})
_MESSAGES = [{"role": "user", "content": "What is 17 + 25?"}]


class RefusedError(SpratError):
    """The server said no, with a reason."""


class ServerDriver:
    """A server with one model, on a free port.

    Args:
        path: the model.
    """

    def __init__(self, path: Path) -> None:
        import httpx

        limits = ["--parallel", "2", "--queue", "4", "--timeout", "60"]
        command = [sys.executable, "-m", "sprat", "serve", f"m={path}", "--port", "0", *limits]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None, "it is a pipe"
        ready = self._process.stderr.readline()
        found = re.search(r"http://([\d.]+):(\d+)", ready)
        assert found is not None, f"the server did not start: {ready}"
        self._messages = ThreadPoolExecutor(1)
        self._messages.submit(self._process.stderr.read)  # a full pipe would stop the server
        self._address = found[1], int(found[2])
        one_kept = httpx.Limits(max_keepalive_connections=1)  # others would count as descriptors of the server
        self._client = httpx.Client(base_url=found[0], timeout=_PATIENCE_S, limits=one_kept)

    def generate(self, prompt: Any, options: dict[str, Any], cancel_after: float | None) -> None:
        """Complete ``prompt``; hang up after ``cancel_after`` seconds, or after a ``timeout`` among the options."""
        patience = options.pop("timeout", cancel_after)
        if patience is None:
            self._post("/v1/completions", {"prompt": prompt, **options})
        else:
            self._hang_up("/v1/completions", {"prompt": prompt, **options, "stream": True}, max(patience, 0.0))

    def chat(self, options: dict[str, Any]) -> None:
        """Request a chat completion."""
        self._post("/v1/chat/completions", {"messages": _MESSAGES, **options})

    def abandon(self) -> None:
        """Send half of a request, and hang up."""
        head, body = _raw("/v1/chat/completions", {"messages": _MESSAGES})
        with socket.create_connection(self._address, _PATIENCE_S) as connection:
            connection.sendall(head + body[: len(body) // 2])

    def hold(self, rng: random.Random) -> None:
        """Up to twenty clients at a time, more than may wait."""
        n_clients = rng.randint(2, 20)
        with ThreadPoolExecutor(n_clients) as clients:
            answers = [clients.submit(self.chat, {"max_tokens": 8}) for _ in range(n_clients)]
        errors = [error for answer in answers if (error := answer.exception())]
        if unexpected := [error for error in errors if not isinstance(error, SpratError)]:
            raise unexpected[0]
        if errors:
            raise errors[0]

    def processes(self) -> list[int]:
        """The server, once it has noticed who hung up."""
        until = time.monotonic() + _PATIENCE_S
        while re.search(r"^sprat_(running|waiting)\S* [1-9]", self._client.get("/metrics").text, re.MULTILINE):
            assert time.monotonic() < until, "an answer that nobody reads goes on"
            time.sleep(0.05)
        return [self._process.pid]

    def close(self) -> None:
        """Stop the server, which ends with status 0."""
        self._client.close()
        self._process.terminate()
        status = self._process.wait(_PATIENCE_S)
        self._messages.shutdown()
        assert self._process.stderr is not None, "it is a pipe"
        self._process.stderr.close()
        assert status == 0, f"the server ended with status {status}"

    def _post(self, route: str, body: dict[str, Any]) -> None:
        """Send a request and read the whole answer.

        Raises:
            RefusedError: the server refused it.
        """
        response = self._client.post(route, content=_encoded(body))
        if response.status_code in _REFUSALS:
            raise RefusedError(response.json()["error"]["message"])
        assert response.status_code == 200, f"status {response.status_code}: {response.text[:500]}"

    def _hang_up(self, route: str, body: dict[str, Any], seconds: float) -> None:
        """Send a request and go away after ``seconds``, whatever came."""
        head, content = _raw(route, body)
        with socket.create_connection(self._address, _PATIENCE_S) as connection:
            connection.sendall(head + content)
            connection.settimeout(seconds or 1e-6)
            with suppress(TimeoutError):
                assert connection.recv(1 << 16), "the server closed the connection"


def _encoded(body: dict[str, Any]) -> bytes:
    """JSON, also of what JSON has not: NaN is written as such, bytes as themselves."""
    if any(isinstance(value, bytes) for value in body.values()):
        return b'{"model": "m", "prompt": \xff'
    return json.dumps({"model": "m", **body}).encode()


def _raw(route: str, body: dict[str, Any]) -> tuple[bytes, bytes]:
    """The head and the body of a request."""
    content = _encoded(body)
    head = f"POST {route} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode(), content
