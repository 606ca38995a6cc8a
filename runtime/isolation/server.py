"""``Server``: answers the requests of :class:`~sprat.runtime.isolation.backend.IsolatedBackend` with a real backend."""

from __future__ import annotations

import os
import select
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sprat.arrays import F32Array
from sprat.errors import SpratError
from sprat.runtime.backends.protocol import Backend, TokenStream
from sprat.runtime.backends.registry import BackendChoice, LoadRequest, open_backend
from sprat.runtime.interrupt import Interrupt
from sprat.runtime.isolation.messages import (
    CloseStream,
    Computed,
    Failed,
    Forward,
    Load,
    Loaded,
    MoreRows,
    Opened,
    OpenStream,
    Reply,
    Request,
    receive_request,
    send,
)
from sprat.runtime.isolation.region import SHARED, Region
from sprat.runtime.open_model import open_model

__all__ = ["Server"]

_LOOK_FOR_PARENT_MS = 1000
_MOST_TEXT = 8000  # characters of an error


class Server:
    """Answers requests.

    Args:
        descriptor: of the socket.
        cancels: of the pipe of cancels.
        region: of the region's memory.
    """

    def __init__(self, descriptor: int, cancels: int, region: int) -> None:
        self._descriptor, self._region_descriptor = descriptor, region
        self._cancels = _Cancels(cancels)
        self._streams: dict[int, TokenStream] = {}

    def run(self, load: Load, parent: int, end: Callable[[], object]) -> None:
        """Answer the first request and all others, until the socket is closed.

        Args:
            load: the first request.
            parent: the process that sends them.
            end: called by another thread when that process has ended, or has closed the pipe.
        """
        self._cancels.watch(parent, end)
        try:
            self._backend = _open(load)
        except SpratError as error:
            send(self._descriptor, _failed(load.number, error, 0))
            return
        self._region = Region(self._region_descriptor, self._backend.vocab_size)
        self._rows: F32Array = self._region.shared[:0]  # logits that have not been handed over
        send(self._descriptor, Loaded(load.number, self._backend.vocab_size, self._backend.max_context))
        while (request := receive_request(self._descriptor)) is not None:
            reply = self._answer(request)
            if reply is not None:
                send(self._descriptor, reply)
        self._backend.close()

    def _answer(self, request: Request) -> Reply | None:
        match request:
            case OpenStream(number, stream, capacity):
                return self._open_stream(number, stream, capacity)
            case CloseStream(_, stream):
                if closed := self._streams.pop(stream, None):
                    closed.close()
                return None
            case Forward():
                return self._forward(request, self._streams[request.stream])
            case MoreRows(number):
                return Computed(number, 0, self._hand_over())
            case Load():
                raise AssertionError("a second model")

    def _open_stream(self, number: int, stream: int, capacity: int) -> Reply:
        try:
            self._streams[stream] = self._backend.new_stream(capacity)
        except SpratError as error:
            return _failed(number, error, 0)
        return Opened(number)

    def _forward(self, request: Forward, stream: TokenStream) -> Reply:
        tokens = self._region.tokens[: request.n_tokens].tolist()
        interrupt = self._cancels.interrupt(request)
        self._rows = self._rows[:0]
        try:
            if stream.length != request.n_past:
                stream.truncate(request.n_past)
            with interrupt:
                rows = stream.forward_all(tokens) if request.all_logits else stream.forward(tokens)
                self._rows = rows.reshape(-1, self._backend.vocab_size)
        except SpratError as error:
            return _failed(request.number, error, stream.length)
        return Computed(request.number, stream.length, self._hand_over(request.row))

    def _hand_over(self, row: int = SHARED) -> int:
        """Move the next rows of logits to the region: to its shared rows, or one to the row that will be lent."""
        place = self._region.shared if row == SHARED else self._region.row(row)[None]
        n = min(len(self._rows), len(place))
        place[:n] = self._rows[:n]
        self._rows = self._rows[n:]
        return n


class _Cancels:
    """Cancels of requests, which come at any time; and the end of the process that sends them."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._latest = -1  # number of the latest request that was cancelled
        self._running: tuple[int, Interrupt] = (-1, Interrupt())

    def interrupt(self, request: Forward) -> Interrupt:
        """The interrupt of a pass that begins."""
        interrupt = Interrupt(request.deadline)
        with self._lock:
            self._running = request.number, interrupt
            if self._latest >= request.number:
                interrupt.cancel()
        return interrupt

    def watch(self, parent: int, end: Callable[[], object]) -> None:
        """Start to listen, until process ``parent`` has ended or the pipe is closed; then call ``end``."""
        threading.Thread(target=self._listen, args=(parent, end), daemon=True).start()

    def _listen(self, parent: int, end: Callable[[], object]) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while os.getppid() == parent:  # forks of the parent keep the pipe open
            if poll.poll(_LOOK_FOR_PARENT_MS):
                data = os.read(self._descriptor, 8)
                if not data:
                    break
                self._cancel(*struct.unpack("q", data))
        end()

    def _cancel(self, number: int) -> None:
        with self._lock:
            self._latest = max(self._latest, number)
            running, interrupt = self._running
            if running == number:
                interrupt.cancel()


def _open(load: Load) -> Backend:
    """The backend of a request, as the other process chose it, which has also looked at the operators of a graph."""
    model = open_model(Path(load.path), load.backend, trust=True)
    fields: dict[str, Any] = {name: getattr(load, name) for name in LoadRequest.__slots__ if hasattr(load, name)}
    request = LoadRequest(file=model.file, spec=model.spec, isolated=True, **fields)
    return open_backend(BackendChoice(load.backend), request)


def _failed(number: int, error: SpratError, length: int) -> Failed:
    return Failed(number, type(error).__name__, str(error)[:_MOST_TEXT], length)
