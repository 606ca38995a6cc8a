"""The ``llamacpp`` backend: llama.cpp through llama-cpp-python's low-level functions.

The ``Llama`` class does not expose ``use_extra_bufts``, without which MoE models abort on CPUs with AMX. The file is
first opened in a child process (:mod:`sprat.runtime.backends.llamacpp_probe`): an abort or an illegal instruction there
is an error here.
"""

from __future__ import annotations

import collections
import ctypes
import functools
import importlib.util
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sprat.arrays import F32Array
from sprat.devices.plan.context_settings import CACHE_ELEMENT_BYTES, PLANNED_CACHES, ContextSettings
from sprat.devices.plan.footprint import Footprint
from sprat.errors import BackendError, PromptError, SpratError
from sprat.runtime.arch.gguf_keys import llamacpp_differences
from sprat.runtime.backends.gpu.attention_shape import AttentionShape
from sprat.runtime.backends.gpu.ggml import CACHE_TYPES, ggml
from sprat.runtime.backends.gpu.offload import Offload
from sprat.runtime.backends.gpu.place import place_on_gpu
from sprat.runtime.backends.gpu.use import GPUUse
from sprat.runtime.backends.library_guard import LibraryGuard
from sprat.runtime.backends.llamacpp_build import install_command
from sprat.runtime.backends.llamacpp_probe import probe
from sprat.runtime.backends.registry import BackendLoader, LoadRequest
from sprat.runtime.interrupt import InterruptError, current_interrupt
from sprat.runtime.memory.buffers import activation_bytes
from sprat.runtime.memory.footprint import file_footprint
from sprat.runtime.memory.key_bias import has_large_key_bias
from sprat.runtime.models import RoutingObserver

__all__ = ["LlamaCppBackend", "LlamaCppStream"]

_BATCH = 256  # maximum tokens per llama_decode on the CPU: longer prompts are split
_ON_CPU = ContextSettings(batch=_BATCH)
_CHOOSES = -1  # LLAMA_FLASH_ATTN_TYPE_AUTO
_OWN_BYTES = 12 << 20  # graph, thread stacks and buffers whose size does not depend on the model
_ACTIVATIONS = 2.6  # of the native kernels' activations, for a batch: measured
_LOG_ERROR = 4  # GGML_LOG_LEVEL_ERROR
_ABORTED = 2  # of llama_decode: its abort callback returned true


class LlamaCppLoader(BackendLoader, name="llamacpp"):
    """llama.cpp, if llama-cpp-python is installed and can load the file."""

    uses_gpu = True
    stores_int4 = True

    def gives_entries(self, request: LoadRequest) -> bool:
        """llama.cpp keeps them."""
        return False

    def footprint(self, request: LoadRequest) -> Footprint:
        """The cache, and the activations and logits of one batch of llama.cpp's own size; less what a GPU holds."""
        buffer_bytes = self.stream_bytes(request) + _OWN_BYTES
        element_bytes = CACHE_ELEMENT_BYTES[_settings(request).cache]
        found = request.footprint(cache_element_bytes=element_bytes, buffer_bytes=buffer_bytes)
        use = request.gpu_use
        if use is None:
            return found
        n_layers = use.placement.n_layers
        return replace(
            found,
            resident_bytes=found.resident_bytes - use.dense_bytes,
            routed_bytes=found.routed_bytes - use.experts_bytes,
            cache_bytes_per_token=found.cache_bytes_per_token * (n_layers - use.placement.layers) // n_layers,
        )

    def place(self, request: LoadRequest) -> GPUUse:
        """The placement, tried in a child process with this file and context.

        Raises:
            BackendError: there is no GPU that helps, or llama.cpp fails on it.
            DoesNotFitError: the GPU's memory is too small.
        """
        footprint = file_footprint(request.spec, request.file, context=request.context)
        use = place_on_gpu(
            request.gpu,
            footprint,
            AttentionShape.of(request.spec.attention),
            accelerator=request.accelerator,
            memory_bytes=request.memory_bytes,
            wishes=request.wishes,
            caches=PLANNED_CACHES[:1] if has_large_key_bias(request.file) else PLANNED_CACHES,
        )
        probe(request.file.path, use, request.context)
        return use

    def stream_bytes(self, request: LoadRequest) -> int:
        """Each context has activations and logits of its own."""
        batch = min(_settings(request).batch, request.context)
        return int(_ACTIVATIONS * batch * activation_bytes(request.spec)) + 2 * request.spec.vocab_size * 4

    def why_not(self, request: LoadRequest) -> SpratError | None:
        """llama-cpp-python is not installed, or llama.cpp computes this model in another way."""
        if differences := llamacpp_differences(request.spec):
            return BackendError(f"{request.file.path}: {'; '.join(differences)}; use the native backend")
        if importlib.util.find_spec("llama_cpp") is None:
            return BackendError(f"llama-cpp-python is not installed; install it for this CPU: {install_command()}")
        return None

    def isolated_request(self, request: LoadRequest) -> LoadRequest:
        """The request with the result of the probe, a separate process: a GPU driver needs more than a sandbox has."""
        path, use = request.file.path, request.gpu_use
        readable = request.file.files() if use is None else ()
        return replace(request, use_extra_bufts=probe(path, use, request.context, readable=readable).use_extra_bufts)

    def load(self, request: LoadRequest) -> LlamaCppBackend:
        """Probe the file in a child process, then load it here with the settings that worked.

        Raises:
            BackendError: llama.cpp crashed on the file, or rejected it.
        """
        use_extra_bufts = request.use_extra_bufts
        if use_extra_bufts is None:
            use_extra_bufts = probe(request.file.path, request.gpu_use, request.context).use_extra_bufts
        footprint = self.footprint(request)
        repacked_bytes = footprint.total_bytes + footprint.weight_bytes  # repacked weights are a second copy
        fits = request.memory_bytes is None or repacked_bytes <= request.memory_bytes
        return LlamaCppBackend(
            request.file.path,
            n_threads=request.n_threads,
            use_extra_bufts=use_extra_bufts and fits,
            parts=[part.path for part in request.gguf.parts],
            gpu=request.gpu_use,
            settings=_settings(request),
        )


def _settings(request: LoadRequest) -> ContextSettings:
    return request.gpu_use.settings if request.gpu_use else request.wishes.on_cpu(_BATCH)


class LlamaCppBackend:
    """A model in llama.cpp.

    Args:
        path: a GGUF file.
        n_threads: number of threads.
        use_extra_bufts: let llama.cpp repack weights for this CPU: about twice the prefill speed, but MoE models abort
            with AMX.
        parts: all files of a split model; by default ``path`` alone.
        gpu: what goes on which GPU; by default nothing, whatever llama.cpp is built for.
        settings: of the contexts.
    """

    name = "llamacpp"

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        use_extra_bufts: bool,
        parts: Sequence[Path] = (),
        gpu: GPUUse | None = None,
        settings: ContextSettings = _ON_CPU,
    ) -> None:
        self._guard = LibraryGuard("llama.cpp", parts or [path])
        lib = _library()
        _keep_log()
        ggml()
        params = lib.llama_model_default_params()
        params.use_extra_bufts = use_extra_bufts
        offload = Offload(gpu.placement, gpu.device) if gpu else Offload(None, "")
        offload.set(params)
        self._model = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise BackendError(
                f"{path}: llama.cpp cannot load this file{_why()}; sprat inspect says which runtimes can"
            )
        self._n_threads, self._settings = n_threads, settings
        self._streams: weakref.WeakSet[LlamaCppStream] = weakref.WeakSet()
        self.vocab_size: int = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))
        self.max_context: int = lib.llama_model_n_ctx_train(self._model)

    def new_stream(self, capacity: int, observe: RoutingObserver | None = None) -> LlamaCppStream:
        """An empty sequence in a new llama.cpp context; its routing is not reported, so ``observe`` is ignored.

        Raises:
            BackendError: llama.cpp cannot create the context, mostly for lack of memory; or the backend was closed.
        """
        if not self._model:
            raise BackendError("the engine was closed; load the model again")
        self._guard.check_process()
        stream = LlamaCppStream(
            self._model,
            self._guard,
            capacity=capacity,
            vocab_size=self.vocab_size,
            n_threads=self._n_threads,
            settings=self._settings,
        )
        self._streams.add(stream)
        return stream

    def close(self) -> None:
        """Free the weights and all open streams."""
        for stream in list(self._streams):
            stream.close()
        if self._model:
            _library().llama_model_free(self._model)
            self._model = None


class LlamaCppStream:
    """One sequence in a llama.cpp context."""

    def __init__(
        self,
        model: Any,
        guard: LibraryGuard,
        *,
        capacity: int,
        vocab_size: int,
        n_threads: int,
        settings: ContextSettings,
    ) -> None:
        self._guard = guard
        lib = _library()
        params = lib.llama_context_default_params()
        params.n_ctx = capacity
        params.n_batch = params.n_ubatch = min(capacity, settings.batch)
        params.type_k = params.type_v = CACHE_TYPES[settings.cache]
        params.flash_attn_type = _CHOOSES if settings.flash_attention is None else int(settings.flash_attention)
        params.n_threads = params.n_threads_batch = n_threads
        _keep_log()
        self._context = lib.llama_init_from_model(model, params)
        if not self._context:
            raise BackendError(
                f"llama.cpp cannot create a context of {capacity} tokens with {settings.text()}{_why()}; use a shorter "
                "one, or other settings"
            )
        self._batch = lib.llama_batch_init(params.n_batch, 0, 1)
        self._aborts = ctypes.create_string_buffer(2)
        lib.llama_set_abort_callback(self._context, _is_not_empty(), ctypes.cast(self._aborts, ctypes.c_void_p))
        self._n_batch: int = params.n_batch
        self._vocab_size = vocab_size
        self._free = weakref.finalize(self, _free, self._context, self._batch)  # also if the stream is never closed
        self.capacity = capacity
        self.length = 0
        self.cache = None  # llama.cpp keeps it

    def forward(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after the last one, ``(vocab_size,)``."""
        for start in range(0, len(tokens), self._n_batch):
            self._decode(tokens[start : start + self._n_batch], all_logits=False)
        return self._logits(1).ravel()

    def forward_all(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after each, ``(n, vocab_size)``."""
        rows = []
        for start in range(0, len(tokens), self._n_batch):
            part = tokens[start : start + self._n_batch]
            self._decode(part, all_logits=True)
            rows.append(self._logits(len(part)))
        return np.concatenate(rows)

    def truncate(self, length: int) -> None:
        """Remove every token from position ``length`` on."""
        self._check_open()
        lib = _library()
        if not lib.llama_memory_seq_rm(lib.llama_get_memory(self._context), 0, length, -1):
            raise BackendError(f"llama.cpp cannot truncate the sequence to {length} tokens{_why()}; start a new one")
        self.length = min(self.length, length)

    def close(self) -> None:
        """Free the context and its cache."""
        self._free()

    def _check_open(self) -> None:
        if not self._free.alive:
            raise BackendError("the engine or the session was closed; load the model again")
        self._guard.check_process()

    def _decode(self, tokens: Sequence[int], *, all_logits: bool) -> None:
        self._check_open()
        if self.length + len(tokens) > self.capacity:
            raise PromptError(
                f"the cache holds {self.length} of {self.capacity} tokens and {len(tokens)} more do not fit: "
                "shorten the prompt or load the model with a larger context"
            )
        batch = self._batch
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = self.length + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = all_logits or index == len(tokens) - 1
        interrupt = current_interrupt()
        self._aborts.value = b""
        with interrupt.watch(self._abort) if interrupt else nullcontext():
            status = _library().llama_decode(self._context, batch)
        if status == _ABORTED:
            self.truncate(self.length)  # what the aborted batch has written
            raise InterruptError("llama.cpp was told to stop")
        if status != 0:
            raise BackendError(f"llama.cpp failed at position {self.length} with status {status}{_why()}")
        self._guard.check_files()
        self.length += len(tokens)

    def _abort(self) -> None:
        self._aborts.value = b"1"

    def _logits(self, n_rows: int) -> F32Array:
        """The last ``n_rows`` rows of logits, copied from llama.cpp's buffer."""
        pointer = _library().llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, (n_rows, self._vocab_size)).copy()


@functools.cache  # keeps a reference: ctypes does not
def _is_not_empty() -> Any:
    """A function for llama.cpp, which calls it between any two nodes of its graph: whether a C string is not empty.

    C's ``strlen`` says so without the GIL; a Python function would take longer than a small node.
    """
    return ctypes.cast(ctypes.CDLL(None).strlen, _library().ggml_abort_callback)


def _free(context: Any, batch: Any) -> None:
    _library().llama_batch_free(batch)
    _library().llama_free(context)


def _library() -> Any:
    """llama.cpp's C functions."""
    from llama_cpp import llama_cpp as lib

    return lib


def _keep_log() -> None:
    """Redirect llama.cpp's log into memory and clear it; other users of the library may have changed the callback."""
    _library().llama_log_set(_log_callback(), ctypes.c_void_p(0))
    _recent_errors().clear()


@functools.cache  # keeps a reference: ctypes does not
def _log_callback() -> Any:
    errors = _recent_errors()

    def keep(level: int, text: bytes, _user_data: object) -> None:
        if level == _LOG_ERROR:
            errors.append(text.decode("utf-8", "replace").strip())

    return _library().llama_log_callback(keep)


@functools.cache
def _recent_errors() -> collections.deque[str]:
    """llama.cpp's last error messages."""
    return collections.deque(maxlen=4)


def _why() -> str:
    errors = _recent_errors()
    return f" ({errors[0]})" if errors else ""
