"""The registry of backends, and the choice of one for a file.

A backend is a line in ``_FORMATS`` and one file of this folder with a :class:`BackendLoader` in it::

    class NativeLoader(BackendLoader, name="native"):
        def footprint(self, request): ...
        def why_not(self, request): ...
        def load(self, request): ...

``"auto"`` takes the first one, in order of preference, that can run the file; :class:`BackendChoice` has the reasons
why earlier ones cannot. Files of later ones are not imported: that takes longer than loading a small model.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sprat.devices.parts import Accelerator
from sprat.devices.plan.context_settings import NO_WISHES, ContextWishes
from sprat.devices.plan.footprint import Footprint
from sprat.devices.plan.refusal import refusal
from sprat.errors import BackendError, DoesNotFitError, SpratError, unknown_name
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.backends.gpu.use import GPUUse
from sprat.runtime.backends.protocol import Backend
from sprat.runtime.backends.providers.settings import ProviderSettings
from sprat.runtime.cache.entries import Storage
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.model_file import ModelFile
from sprat.runtime.files.shape_checks import mtp_in_gguf
from sprat.runtime.gpu_option import GPU_OFF, GPUOption
from sprat.runtime.memory.buffers import isolation_bytes, program_bytes
from sprat.runtime.memory.footprint import DEFAULT_BATCH, resident_and_routed
from sprat.text import human_bytes

__all__ = [
    "BackendChoice",
    "BackendLoader",
    "LoadRequest",
    "backend_names",
    "choose",
    "chosen_footprint",
    "chosen_loader",
    "chosen_request",
    "isolated_request",
    "open_backend",
    "stream_bytes",
]

_FORMATS = {"native": "gguf", "reference": "gguf", "llamacpp": "gguf", "onnx": "onnx"}
"""Backend -> file format that it reads, in order of preference."""

_LOADERS: dict[str, BackendLoader] = {}
"""Those whose files are imported."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadRequest:
    """A model to load, with limits and options."""

    file: ModelFile
    spec: ModelSpec
    context: int  # maximum tokens of a sequence
    n_threads: int
    batch: int = DEFAULT_BATCH  # tokens of one forward pass, at most
    memory_bytes: int | None = None  # hard limit; None for the machine's memory
    cache: Storage | None = None  # KV cache storage, for backends that support several; None for the default
    deterministic: bool = False  # require the same bits in every run
    exact: bool = False  # require unquantized activations and cache
    cores: tuple[int, ...] = ()  # cores to pin threads to; empty for no pinning
    streams: bool = False  # experts are streamed from storage
    isolated: bool = False  # in a process of its own
    shields: bool = False  # a backend that opens a device gets a process of its own: its driver can end it
    wishes: ContextWishes = NO_WISHES  # of llama.cpp's contexts
    use_extra_bufts: bool | None = None  # of llama.cpp, where a probe was made; None to make it
    gpu: GPUOption = GPU_OFF  # what the caller says about the GPU
    accelerator: Accelerator | None = None  # of the device's profile
    gpu_use: GPUUse | None = None  # the placement that was chosen
    provider: ProviderSettings | None = None  # of onnxruntime; None for the CPU
    force: bool = False  # load what does not fit a provider's device

    @property
    def gguf(self) -> GGUFFile:
        """The file, for backends that read only GGUF."""
        assert isinstance(self.file, GGUFFile), f"{self.file.path} is not a GGUF file"
        return self.file

    def footprint(self, *, cache_element_bytes: float, buffer_bytes: int, activation_bytes: int = 0) -> Footprint:
        """The footprint of the packed weights with a backend's cache and buffers.

        Args:
            cache_element_bytes: bytes of one element of the KV cache.
            buffer_bytes: activations and scratch; the Python process and the tokenizer are added.
            activation_bytes: share of ``buffer_bytes`` per token of the batch.
        """
        mtp = mtp_in_gguf(self.file.tensors, self.spec)
        sizes = {name: info.nbytes for name, info in self.file.tensors.items() if name not in mtp}
        resident_bytes, routed_bytes = resident_and_routed(sizes)
        return Footprint(
            quant="as in the file",
            resident_bytes=resident_bytes,
            routed_bytes=routed_bytes,
            cache_bytes_per_token=int(self.spec.cache_elements_per_token * cache_element_bytes),
            context=self.context,
            buffer_bytes=buffer_bytes + self._program_bytes,
            batch=self.batch,
            activation_bytes=activation_bytes,
        )

    @property
    def own_process(self) -> bool:
        """Whether the backend runs in a process of its own."""
        opens_device = self.gpu_use is not None or (self.provider is not None and self.provider.opens_device)
        return self.isolated or (self.shields and opens_device)

    @property
    def _program_bytes(self) -> int:
        isolation = isolation_bytes(self.spec.vocab_size) if self.own_process else 0
        return program_bytes(self._tokenizer_size) + isolation

    @property
    def _tokenizer_size(self) -> int:
        """Tokens of the tokenizer; 0 for a GGUF without one."""
        is_absent = isinstance(self.file, GGUFFile) and "tokenizer.ggml.tokens" not in self.file.metadata
        return 0 if is_absent else self.spec.vocab_size


class BackendLoader(ABC):
    """Loads one backend. Each subclass is instantiated once and registered under its name."""

    name: ClassVar[str]
    deterministic: ClassVar[bool] = False  # the same tokens give the same bits in every run
    exact: ClassVar[bool] = False  # supports unquantized activations and cache
    uses_gpu: ClassVar[bool] = False  # has ``place``
    stores_int4: ClassVar[bool] = False  # has a KV cache in int4
    few_as_one: ClassVar[bool] = False  # a few tokens of one pass have the bits of one at a time

    def __init_subclass__(cls, *, name: str) -> None:
        super().__init_subclass__()
        cls.name = name
        assert name in _FORMATS, f"the backend {name!r} has no line in _FORMATS"
        assert name not in _LOADERS, f"two backends are called {name!r}"
        _LOADERS[name] = cls()

    @abstractmethod
    def footprint(self, request: LoadRequest) -> Footprint:
        """Memory that the backend needs, from the header alone."""

    def stream_bytes(self, request: LoadRequest) -> int:
        """Bytes of a stream besides its KV entries; the footprint counts them once."""
        return 0

    def on_device(self, request: LoadRequest) -> str:
        """Planned memory on a provider's device, in words; empty if nothing is planned."""
        return ""

    def gives_entries(self, request: LoadRequest) -> bool:
        """Whether KV entries may be copied between its streams."""
        return True

    def place(self, request: LoadRequest) -> GPUUse:
        """Place parts of the model on a GPU.

        Raises:
            BackendError: there is no GPU that helps.
            DoesNotFitError: the GPU's memory is too small.
        """
        raise BackendError(
            f"{request.file.path}: the {self.name} backend computes on the CPU; use backend='llamacpp' or gpu='off'"
        )

    @abstractmethod
    def why_not(self, request: LoadRequest) -> SpratError | None:
        """Why this backend cannot run the file on this machine, apart from memory; ``None`` if it can."""

    def isolated_request(self, request: LoadRequest) -> LoadRequest:
        """``request`` for a process that can start no other; what needs one is done here.

        Raises:
            BackendError: the backend cannot run the file.
        """
        return request

    @abstractmethod
    def load(self, request: LoadRequest) -> Backend:
        """Load the weights.

        Raises:
            BackendError: loading failed.
        """


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """The backend that runs the model, and the reasons why preferred ones cannot."""

    name: str
    passed_over: tuple[tuple[str, str], ...] = ()
    gpu: GPUUse | None = None  # None on the CPU
    no_gpu_because: str = ""  # why a GPU that was asked for is not used
    provider: str = ""  # of onnxruntime, besides the CPU
    on_device: str = ""  # what is planned for the memory of the provider's device

    def text(self) -> str:
        """The choice in one line.

        Example:
            >>> BackendChoice("reference", (("native", "not built"),)).text()
            'reference; not native (not built)'
        """
        place = f" on {self.gpu.text()}" if self.gpu else " on the CPU" if self.no_gpu_because else ""
        if self.provider:
            place = f" with {self.provider}" + (f" ({self.on_device})" if self.on_device else "")
        text = "; not ".join([self.name + place, *(f"{name} ({why})" for name, why in self.passed_over)])
        return f"{text}; no GPU ({self.no_gpu_because})" if self.no_gpu_because else text


def backend_names() -> list[str]:
    """All backends in order of preference."""
    return list(_FORMATS)


def choose(name: str, request: LoadRequest) -> BackendChoice:
    """The backend ``name``, or for ``"auto"`` the preferred one that can run the file.

    Raises:
        DoesNotFitError: the model needs more memory than the request allows.
        BackendError: unknown backend, or it cannot run the file on this machine, or not on the GPU that is asked for.
    """
    if request.gpu.is_off:
        return _on_cpu(name, request)
    try:
        return _on_gpu(name, request)
    except (BackendError, DoesNotFitError) as error:
        if not request.gpu.falls_back:
            raise
        return replace(_on_cpu(name, request), no_gpu_because=str(error))


def _on_gpu(name: str, request: LoadRequest) -> BackendChoice:
    """The backend on a GPU; without a name the first that can compute there."""
    loaders = list(_candidates(name, request))
    loader = next((each for each in loaders if each.uses_gpu), loaders[0])
    on_cpu = replace(request, memory_bytes=None)  # what is on the card takes none
    if why_not := _why_not(loader, on_cpu):
        raise why_not
    placed = replace(request, gpu_use=loader.place(request))
    if why_not := _why_not(loader, placed):
        raise why_not
    return BackendChoice(loader.name, gpu=placed.gpu_use)


def _on_cpu(name: str, request: LoadRequest) -> BackendChoice:
    passed_over: dict[str, SpratError] = {}
    for candidate in _candidates(name, request):
        why_not = _why_not(candidate, request)
        if why_not is None:
            reasons = tuple((other, str(why)) for other, why in passed_over.items())
            provider = request.provider.name if request.provider else ""
            return BackendChoice(candidate.name, reasons, provider=provider, on_device=candidate.on_device(request))
        passed_over[candidate.name] = why_not
    if len(passed_over) == 1:
        raise next(iter(passed_over.values()))
    if all(isinstance(why, DoesNotFitError) for why in passed_over.values()):
        raise _too_large(passed_over, request)
    why_none = "; ".join(f"{other}: {why}" for other, why in passed_over.items())
    does_not_fit = any(isinstance(why, DoesNotFitError) for why in passed_over.values())
    raise (DoesNotFitError if does_not_fit else BackendError)(f"no backend can run {request.file.path}: {why_none}")


def _too_large(passed_over: dict[str, SpratError], request: LoadRequest) -> DoesNotFitError:
    """Sizes and remedy of the preferred backend, and what the others need."""
    preferred, *others = passed_over
    needs = (f"{name} {human_bytes(_loader(name).footprint(request).total_bytes)}" for name in others)
    return DoesNotFitError(f"{passed_over[preferred]} (other backends need: {', '.join(needs)})")


def chosen_footprint(choice: BackendChoice, request: LoadRequest) -> Footprint:
    """Memory that the chosen backend needs."""
    return _loader(choice.name).footprint(chosen_request(choice, request))


def stream_bytes(choice: BackendChoice, request: LoadRequest) -> int:
    """Bytes of each stream of the chosen backend besides its KV entries."""
    return _loader(choice.name).stream_bytes(chosen_request(choice, request))


def chosen_loader(choice: BackendChoice) -> BackendLoader:
    """The loader of the chosen backend, for its properties."""
    return _loader(choice.name)


def open_backend(choice: BackendChoice, request: LoadRequest) -> Backend:
    """Load the weights into the chosen backend."""
    return _loader(choice.name).load(chosen_request(choice, request))


def chosen_request(choice: BackendChoice, request: LoadRequest) -> LoadRequest:
    """``request`` with the placement that was chosen."""
    return replace(request, gpu_use=choice.gpu) if choice.gpu else request


def isolated_request(choice: BackendChoice, request: LoadRequest) -> LoadRequest:
    """The request for the chosen backend in a process of its own, see :meth:`BackendLoader.isolated_request`."""
    return _loader(choice.name).isolated_request(chosen_request(choice, request))


def _candidates(name: str, request: LoadRequest) -> Iterator[BackendLoader]:
    """The backend ``name``; for ``"auto"`` those that read the file's format, in order of preference."""
    names = [other for other, format_ in _FORMATS.items() if format_ == request.file.format]
    return map(_loader, names if name == "auto" else [name])


def _why_not(loader: BackendLoader, request: LoadRequest) -> SpratError | None:
    reads = _FORMATS[loader.name]
    if reads != request.file.format:
        return BackendError(
            f"{request.file.path}: the {loader.name} backend reads {reads}, not {request.file.format}; "
            f"export the model with --format {reads}"
        )
    if request.deterministic and not loader.deterministic:
        return BackendError(
            f"{request.file.path}: the {loader.name} backend does not guarantee the same bits in every run; "
            "use the native one, or omit deterministic"
        )
    if request.exact and not loader.exact:
        return BackendError(
            f"{request.file.path}: the {loader.name} backend may quantize activations or its cache; "
            "use the native one, or omit exact"
        )
    if request.wishes.cache == "int4" and not loader.stores_int4:
        return BackendError(
            f"{request.file.path}: the {loader.name} backend has no KV cache in int4; use backend='llamacpp', or "
            "cache='int8'"
        )
    if request.memory_bytes is not None:
        subject = f"{request.file.path}: the {loader.name} backend"
        too_large = refusal(loader.footprint(request), request.memory_bytes, subject)
        if too_large is not None:
            return too_large
    return loader.why_not(request)


def _loader(name: str) -> BackendLoader:
    if not isinstance(name, str) or name not in _FORMATS:
        raise BackendError(unknown_name("backend", name, ["auto", *sorted(_FORMATS)]))
    if name not in _LOADERS:
        importlib.import_module(f"{__package__}.{name}")
    return _LOADERS[name]
