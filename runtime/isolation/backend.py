"""``IsolatedBackend``: a backend whose weights, kernels and caches are in another process.

A crash there is a :class:`~sprat.errors.BackendDiedError` here. A token costs two small messages and a copy of its
logits, into memory that both map. Who writes there could change them while they are sampled: into those of another
token, which it may choose anyway.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence

import numpy as np

from sprat import errors
from sprat.arrays import F32Array
from sprat.devices.machine import available_bytes
from sprat.errors import BackendError, ModelFileChangedError, PromptError, SpratError
from sprat.runtime.backends.registry import BackendChoice, LoadRequest, isolated_request
from sprat.runtime.interrupt import check_interrupt, current_interrupt
from sprat.runtime.isolation.messages import (
    Computed,
    Failed,
    Forward,
    Load,
    Loaded,
    MoreRows,
    Opened,
    OpenStream,
    Reply,
)
from sprat.runtime.isolation.process import ISOLATED, Expected, ModelProcess
from sprat.runtime.isolation.region import SHARED
from sprat.runtime.models import RoutingObserver

__all__ = ["IsolatedBackend", "IsolatedStream", "open_isolated"]

_UNTOUCHED_BYTES = 256 << 20  # stacks and reserves of libraries, which count as allocated and are never touched
_UNTOUCHED_BYTES_PER_THREAD = 64 << 20  # the same of a thread: its stack, its part of a library's buffers


def open_isolated(choice: BackendChoice, request: LoadRequest) -> IsolatedBackend:
    """Load the weights into the chosen backend, in a process of its own.

    The process can allocate ``memory_bytes`` (or what the machine has available), read the model and libraries, and
    nothing else: see :mod:`sprat.runtime.sandbox.enter`. One that opens a device is in no sandbox.

    Raises:
        BackendDiedError: the process ended while it loaded.
        BackendError: loading failed, or this system cannot isolate processes.
        ModelFileError: the file changed since it was opened here.
    """
    return IsolatedBackend(choice.name, isolated_request(choice, request))


class IsolatedBackend:
    """A model in another process.

    Args:
        name: of the backend there.
        request: what it loads.
    """

    def __init__(self, name: str, request: LoadRequest) -> None:
        self.name = name
        self.vocab_size = request.spec.vocab_size
        self.max_context = request.spec.max_context
        self._process = ModelProcess(str(request.file.path), self.vocab_size, _expected(request))
        self._n_streams = 0
        try:
            with self._process.turn():
                reply = self._process.ask(_load(name, request, self._process.next_number()))
                self._check_loaded(reply, request)
        except BaseException:
            self._process.close()
            raise

    @property
    def process_id(self) -> int:
        """The process with the model."""
        return self._process.process_id

    def _check_loaded(self, reply: object, request: LoadRequest) -> None:
        if isinstance(reply, Failed):
            raise _error(reply)
        if not isinstance(reply, Loaded):
            raise self._process.died("it did not say that the model is loaded")
        if (reply.vocab_size, reply.max_context) != (self.vocab_size, self.max_context):
            raise ModelFileChangedError(f"{request.file.path}: another file since it was opened; load the model again")

    def new_stream(self, capacity: int, observe: RoutingObserver | None = None) -> IsolatedStream:
        """An empty sequence; its routing is not reported, so ``observe`` is ignored.

        Raises:
            BackendDiedError: the process has ended.
            BackendError: the backend was closed, or cannot make the stream.
        """
        with self._process.turn():
            self._n_streams += 1
            stream = IsolatedStream(self._process, self._n_streams, capacity)
            reply = self._process.ask(OpenStream(self._process.next_number(), self._n_streams, capacity))
        if isinstance(reply, Failed):
            raise _error(reply)
        if not isinstance(reply, Opened):
            raise self._process.died("it did not say that a stream is open")
        return stream

    def close(self) -> None:
        """End the process; a pass of another thread ends first."""
        self._process.close()


class IsolatedStream:
    """One sequence of a model in another process.

    Args:
        process: the process.
        number: of the stream there.
        capacity: maximum number of tokens.
    """

    def __init__(self, process: ModelProcess, number: int, capacity: int) -> None:
        self._process, self._number = process, number
        self._release = weakref.finalize(self, process.closed_streams.append, number)  # also if it is collected
        self._release.atexit = False
        self._length = 0
        self.capacity = capacity
        self.cache = None  # the entries stay in that process

    @property
    def length(self) -> int:
        """Tokens in the cache; 0 once it is closed."""
        return self._length if self._release.alive else 0

    def forward(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after the last one, ``(vocab_size,)``."""
        with self._process.turn():
            region = self._process.region
            row = region.unused_row()
            shared = self._pass(tokens, row=row, all_logits=False)
            return shared[0].copy() if row == SHARED else region.lend(row)

    def forward_all(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after each, ``(n, vocab_size)``."""
        with self._process.turn():
            parts = [self._pass(tokens, row=SHARED, all_logits=True).copy()]
            while (n := sum(map(len, parts))) < len(tokens):
                reply = self._process.ask(MoreRows(self._process.next_number()))
                parts.append(self._rows(reply, len(tokens) - n).copy())
        return np.concatenate(parts)

    def truncate(self, length: int) -> None:
        """Remove every token from position ``length`` on; the process does with the next pass."""
        self._check_open()
        self._length = min(self._length, length)

    def close(self) -> None:
        """Free the cache; once more does nothing."""
        self._release()
        self._process.close_streams()

    def _pass(self, tokens: Sequence[int], *, row: int, all_logits: bool) -> F32Array:
        """Run a pass: the rows of logits that are in the region, in ``row`` or shared.

        Raises:
            InterruptError: the current interrupt ended it.
            SpratError: it failed.
        """
        self._check_open()
        check_interrupt()
        n, n_past, interrupt = len(tokens), self._length, current_interrupt()
        self._put(tokens)
        number, deadline = self._process.next_number(), interrupt.deadline if interrupt else None
        reply = self._process.ask(Forward(number, self._number, n_past, n, all_logits, row, deadline))
        if isinstance(reply, Computed | Failed):
            self._length = max(n_past, min(reply.length, n_past + n))
        if isinstance(reply, Failed):
            raise _error(reply)
        if isinstance(reply, Computed) and not reply.n_rows:
            check_interrupt()
        return self._rows(reply, n if all_logits else 1)

    def _put(self, tokens: Sequence[int]) -> None:
        region = self._process.region.tokens
        if len(tokens) > len(region):
            raise PromptError(f"found {len(tokens):,} tokens, expected at most {len(region):,} in one pass")
        try:
            region[: len(tokens)] = tokens
        except OverflowError as error:
            raise PromptError(f"a token id is far outside the vocabulary ({error})") from error

    def _rows(self, reply: Reply, most: int) -> F32Array:
        """The shared rows of logits that the process has written."""
        shared = self._process.region.shared
        if not isinstance(reply, Computed) or not 0 < reply.n_rows <= min(most, len(shared)):
            raise self._process.died("it sent no logits")
        return shared[: reply.n_rows]

    def _check_open(self) -> None:
        if not self._release.alive:
            raise BackendError("the engine or the session was closed; load the model again")


def _expected(request: LoadRequest) -> Expected:
    if request.gpu_use is not None:
        return Expected.of_device(request.gpu_use.device, "use gpu='off'")
    if request.provider is not None:
        return Expected.of_device(request.provider.name, "leave the provider out")
    return ISOLATED


def _load(name: str, request: LoadRequest, number: int) -> Load:
    n_bytes = request.memory_bytes or available_bytes()
    return Load(
        number=number,
        backend=name,
        path=os.fspath(request.file.path.absolute()),
        readable=tuple(os.path.realpath(path) for path in request.file.files()),
        limit_bytes=n_bytes + _UNTOUCHED_BYTES + request.n_threads * _UNTOUCHED_BYTES_PER_THREAD,
        context=request.context,
        n_threads=request.n_threads,
        batch=request.batch,
        memory_bytes=request.memory_bytes,
        cache=request.cache,
        deterministic=request.deterministic,
        exact=request.exact,
        cores=request.cores,
        streams=request.streams,
        use_extra_bufts=request.use_extra_bufts,
        wishes=request.wishes,
        gpu_use=request.gpu_use,
        provider=request.provider,
    )


def _error(reply: Failed) -> SpratError:
    """The error that the process reports; a BackendError if it is none of sprat's."""
    kind = getattr(errors, reply.kind, None) if reply.kind in errors.__all__ else None
    if isinstance(kind, type) and issubclass(kind, SpratError):
        return kind(reply.message)
    return BackendError(reply.message)
