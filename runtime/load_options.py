"""The options of loading a model: one record with defaults, and the same names as keyword arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, TypedDict

from sprat.devices.plan.placement import Placement
from sprat.errors import InputError
from sprat.keywords import record_of
from sprat.runtime.cache import STORAGES, Storage
from sprat.runtime.files.model_file import Check
from sprat.runtime.gpu_option import GPUOption

__all__ = ["LoadKeywords", "LoadOptions"]


class LoadKeywords(TypedDict, total=False):
    """The fields of :class:`LoadOptions`, for type checkers; documented there."""

    device: str | None
    memory: int | str | None
    backend: str
    context: int | None
    batch: int | None
    force: bool
    cache: Storage | None
    deterministic: bool
    exact: bool
    check: Check
    isolate: bool
    trust: bool
    gpu: str | int | Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How to load a model.

    Attributes:
        device: a profile (see ``sprat devices``) whose plan chooses threads, context, batch and cache format; the model
            must fit on it, with all weights resident or with expert streaming.
        memory: hard limit for weights, buffers and the KV caches of all sessions, in bytes or as ``"3GB"``; replaces
            the device's. For a checkpoint: bytes of weights that may stay in memory as float32.
        backend: a name that ``sprat doctor`` lists, or ``"auto"``; :attr:`Engine.backend_choice` says why it was
            chosen.
        context: tokens of prompt and answer together; by default the model's limit, at most 4096, or what fits.
        batch: prompt tokens of one forward pass, which are in memory together; by default 256, or the plan's for
            ``device``. Fewer take less memory and are slower.
        force: load a model that does not fit; the operating system then reads weights from storage for every token.
        cache: storage of the native backend's KV cache, ``"f16"`` or ``"int8"`` (about half the bytes); replaces the
            device's. By default keys and values are stored in f16 and latents in int8.
        deterministic: require a backend with the same bits for the same tokens in every run, as the native one has with
            any number of threads; other chunk sizes of prefill (``batch``, or a ``timeout`` that shortens the last
            chunks) change the rounding.
        exact: require a backend that does not round; the native one takes two int8 digits and a float32 cache.
        check: ``"sizes"`` compares the sizes of a bundle's files with its manifest, ``"hashes"`` reads every file and
            compares its SHA-256 as well; see :meth:`~sprat.runtime.files.bundle.Bundle.check`.
        isolate: run the backend in a process of its own that has no network, reads only the model and libraries,
            writes nothing, starts nothing and has a limit of memory. When it crashes, calls raise
            :class:`~sprat.errors.BackendDiedError`, and the model can be loaded again. Linux only.
        trust: run an ONNX graph with operators that sprat's exporter does not write, such as ``Loop``. A graph is a
            program: one from somewhere else may not end, or take all memory. Everything else is checked as before.
        gpu: ``"off"`` computes on the CPU. Everything else takes the ``llamacpp`` backend: ``"auto"`` the fastest split
            between a GPU's free memory and RAM, and the CPU where no GPU helps (:attr:`Engine.backend_choice` says
            why); ``"4GB"`` the same with so much of the GPU's memory, ``"on"`` everything on the GPU, or a
            :class:`~sprat.devices.plan.placement.Placement`: these three are errors where they do not work.
    """

    device: str | None = None
    memory: int | str | None = None
    backend: str = "auto"
    context: int | None = None
    batch: int | None = None
    force: bool = False
    cache: Storage | None = None
    deterministic: bool = False
    exact: bool = False
    check: Check = "sizes"
    isolate: bool = False
    trust: bool = False
    gpu: str | int | Placement = "off"

    def __post_init__(self) -> None:
        """Check what no later step looks at.

        Raises:
            InputError: ``cache`` is no storage, or ``gpu`` none of its values.
        """
        gpu = GPUOption.of(self.gpu)
        if self.isolate and not gpu.is_off:
            raise InputError(f"gpu is {self.gpu!r} with isolate=True, but it opens no device; drop one of the two")
        if self.cache is not None and self.cache not in STORAGES:
            raise InputError(f"cache is {self.cache!r}, expected one of {', '.join(STORAGES)}, or None for the default")

    @classmethod
    def of(cls, function: str, keywords: LoadKeywords) -> Self:
        """The record of ``function``'s keyword arguments; TypeError for one that does not exist."""
        return record_of(cls, function, keywords)
