"""Which backends there are, and which one runs a given file.

A backend is one file of this folder with a :class:`BackendLoader` in it::

    class NativeLoader(BackendLoader, name="native", preference=10):
        def footprint(self, request): ...
        def why_not(self, request): ...
        def load(self, request): ...

``"auto"`` walks them in the order of preference and takes the first one without an obstacle; what it passed over, and
why, stays in :class:`BackendChoice`.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from sprat.devices.plan.footprint import Footprint
from sprat.devices.plan.refusal import refusal
from sprat.errors import BackendError, DoesNotFitError, SpratError, unknown_name
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.backends.protocol import Backend
from sprat.runtime.cache.entries import Storage
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.model_file import ModelFile
from sprat.runtime.footprint import program_bytes, resident_and_routed

__all__ = [
    "BackendChoice",
    "BackendLoader",
    "LoadRequest",
    "backend_names",
    "choose",
    "chosen_footprint",
    "open_backend",
]

_LOADERS: dict[str, BackendLoader] = {}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadRequest:
    """A model to run, and the limits that it must keep."""

    file: ModelFile
    spec: ModelSpec
    context: int  # tokens of the longest sequence that will be asked for
    n_threads: int
    memory_bytes: int | None = None  # hard budget; None for what the machine has
    cache: Storage | None = None  # what the cache keeps, where a backend has the choice; None for its own
    deterministic: bool = False  # only a backend that gives the same bits at every run
    exact: bool = False  # only a backend that can leave activations and caches unrounded
    cores: tuple[int, ...] = ()  # to keep threads on; none leaves them to the system
    streams: bool = False  # the experts are larger than memory, and come and go with the mapped file

    @property
    def gguf(self) -> GGUFFile:
        """The file, for a backend that reads only this format."""
        assert isinstance(self.file, GGUFFile), f"{self.file.path} is no GGUF"
        return self.file

    def footprint(self, *, cache_number_bytes: int, buffer_bytes: int) -> Footprint:
        """The file's weights as they are packed, with a backend's cache and buffers.

        Args:
            cache_number_bytes: of one number in the cache.
            buffer_bytes: of activations and scratch, at most; the program itself and its tokenizer are added.
        """
        sizes = {name: info.nbytes for name, info in self.file.tensors.items()}
        resident_bytes, routed_bytes = resident_and_routed(sizes)
        return Footprint(
            quant="as in the file",
            resident_bytes=resident_bytes,
            routed_bytes=routed_bytes,
            cache_bytes_per_token=self.spec.cache_elements_per_token * cache_number_bytes,
            context=self.context,
            buffer_bytes=buffer_bytes + program_bytes(self.spec.vocab_size),
        )


class BackendLoader(ABC):
    """How to get one backend; the single instance of each subclass is registered under its name."""

    name: ClassVar[str]
    preference: ClassVar[int]  # lower is tried first
    reads: ClassVar[str]  # the format of its files
    deterministic: ClassVar[bool] = False  # whether the same tokens give the same bits at every run
    exact: ClassVar[bool] = False  # whether it can leave activations and caches unrounded

    def __init_subclass__(cls, *, name: str, preference: int, reads: str = "gguf") -> None:
        super().__init_subclass__()
        cls.name, cls.preference, cls.reads = name, preference, reads
        assert name not in _LOADERS, f"two backends are called {name!r}"
        _LOADERS[name] = cls()

    @abstractmethod
    def footprint(self, request: LoadRequest) -> Footprint:
        """Bytes that it would take, from the header alone."""

    @abstractmethod
    def why_not(self, request: LoadRequest) -> SpratError | None:
        """Why this backend cannot run the file here, memory aside; ``None`` when it can."""

    @abstractmethod
    def load(self, request: LoadRequest) -> Backend:
        """Load the weights.

        Raises:
            BackendError: it failed although there was no obstacle.
        """


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """The backend that runs the model, and the reasons against those that were passed over."""

    name: str
    passed_over: tuple[tuple[str, str], ...] = ()

    def text(self) -> str:
        """One line for a person.

        Example:
            >>> BackendChoice("reference", (("native", "not built"),)).text()
            'reference; not native (not built)'
        """
        return "; not ".join([self.name, *(f"{name} ({why})" for name, why in self.passed_over)])


def backend_names() -> list[str]:
    """All backends of this folder, the preferred one first."""
    return [loader.name for loader in _by_preference()]


def choose(name: str, request: LoadRequest) -> BackendChoice:
    """The backend called ``name``, or for ``"auto"`` the first one without an obstacle.

    Raises:
        DoesNotFitError: the model needs more memory than the request allows.
        BackendError: no such backend, or it cannot run the file here.
    """
    passed_over: dict[str, SpratError] = {}
    for candidate in _candidates(request) if name == "auto" else [_loader(name)]:
        why_not = _why_not(candidate, request)
        if why_not is None:
            return BackendChoice(candidate.name, tuple((other, str(why)) for other, why in passed_over.items()))
        passed_over[candidate.name] = why_not
    if len(passed_over) == 1:
        raise next(iter(passed_over.values()))
    reasons = "; ".join(f"{other}: {why}" for other, why in passed_over.items())
    does_not_fit = any(isinstance(why, DoesNotFitError) for why in passed_over.values())
    raise (DoesNotFitError if does_not_fit else BackendError)(f"no backend can run {request.file.path}: {reasons}")


def chosen_footprint(choice: BackendChoice, request: LoadRequest) -> Footprint:
    """Bytes that the chosen backend would take."""
    return _loader(choice.name).footprint(request)


def open_backend(choice: BackendChoice, request: LoadRequest) -> Backend:
    """Load the weights into the chosen backend."""
    return _loader(choice.name).load(request)


def _by_preference() -> list[BackendLoader]:
    return sorted(_loaders().values(), key=lambda loader: loader.preference)


def _candidates(request: LoadRequest) -> list[BackendLoader]:
    """Backends that read files of this format, the preferred one first."""
    return [loader for loader in _by_preference() if loader.reads == request.file.format]


def _why_not(loader: BackendLoader, request: LoadRequest) -> SpratError | None:
    if loader.reads != request.file.format:
        return BackendError(
            f"{request.file.path}: the {loader.name} backend reads {loader.reads}, not {request.file.format}; "
            f"export the model with --format {loader.reads}"
        )
    if request.deterministic and not loader.deterministic:
        return BackendError(
            f"{request.file.path}: the {loader.name} backend does not promise the same bits at every run; "
            "take the native one, or leave deterministic out"
        )
    if request.exact and not loader.exact:
        return BackendError(
            f"{request.file.path}: the {loader.name} backend rounds activations or its cache as it likes; "
            "take the native one, or leave exact out"
        )
    if request.memory_bytes is not None:
        subject = f"{request.file.path}: the {loader.name} backend"
        too_large = refusal(loader.footprint(request), request.memory_bytes, subject)
        if too_large is not None:
            return too_large
    return loader.why_not(request)


def _loader(name: str) -> BackendLoader:
    try:
        return _loaders()[name]
    except KeyError:
        raise BackendError(unknown_name("backend", name, ["auto", *_loaders()])) from None


def _loaders() -> dict[str, BackendLoader]:
    """Import every module of this folder once, so that its loader is registered."""
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{__package__}.{module.name}")
    return _LOADERS
