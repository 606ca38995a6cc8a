"""The options of loading a model: one record with defaults, and the same names as keyword arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias, TypedDict

from sprat.devices.parts import Accelerator
from sprat.devices.plan.context_settings import CACHE_ELEMENT_BYTES, CacheType, ContextWishes
from sprat.devices.plan.placement import Placement
from sprat.errors import InputError
from sprat.files import checked_path
from sprat.keywords import record_of
from sprat.runtime.backends.providers.settings import ProviderSettings
from sprat.runtime.files.model_file import Check
from sprat.runtime.gpu_option import GPUOption

__all__ = ["LoadKeywords", "LoadOptions", "Speculate"]

Speculate: TypeAlias = Literal["auto", "off"] | int

_MAX_DRAFTS = 64


class LoadKeywords(TypedDict, total=False):
    """The fields of :class:`LoadOptions`, for type checkers; documented there."""

    device: str | None
    memory: int | str | None
    backend: str
    context: int | None
    batch: int | None
    force: bool
    cache: CacheType | None
    flash_attention: bool | None
    deterministic: bool
    exact: bool
    check: Check
    isolate: bool
    trust: bool
    gpu: str | int | Placement
    provider: str | None
    provider_options: Mapping[str, str] | None
    prefix_cache: bool | str | os.PathLike[str]
    speculate: Speculate


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Options for loading a model.

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
        cache: storage of the KV cache, ``"f16"`` or ``"int8"`` (about half the bytes); replaces the device's. By
            default the native backend stores keys and values in f16 and latents in int8. llama.cpp also has ``"int4"``;
            it takes f16, and int8 on a GPU where a token is then predicted to be 10 % faster.
        flash_attention: of llama.cpp: attention in one kernel, without an array of scores. By default where the GPU
            has it for this model; on the CPU llama.cpp chooses.
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
            :class:`~sprat.devices.plan.placement.Placement`: these three are errors where they do not work. On Linux
            the driver is in a process of its own: when it crashes, calls raise
            :class:`~sprat.errors.BackendDiedError`.
        provider: an execution provider of onnxruntime, for an ONNX model; the CPU computes the rest: ``"webgpu"``,
            ``"cuda"``, ``"coreml"``, ``"directml"``, ``"openvino"`` or ``"qnn"``. Its logits are first compared with
            the CPU's, in a child process; wrong ones are an error. Its driver is where that of ``gpu`` is. See
            docs/onnx.md.
        provider_options: its options in onnxruntime's words, ``{"device_id": "1"}``; they replace those of ``device``.
        prefix_cache: keep the KV entries of prompts, so that the next one with the same beginning processes only the
            rest: at most those of one full context, and only what ``memory`` leaves beside sessions. A folder also
            keeps them on disk, for the next start. False for none. See docs/embedding.md.
        speculate: ``"auto"`` lets a pass check up to 4 guessed tokens where that is faster (docs/embedding.md); a
            number, up to so many; ``"off"``, none. The answer's distribution is the same. With up to 4, the native
            backend's bits are, too; with ``deterministic``, others guess nothing and this one no more than 4.
    """

    device: str | None = None
    memory: int | str | None = None
    backend: str = "auto"
    context: int | None = None
    batch: int | None = None
    force: bool = False
    cache: CacheType | None = None
    flash_attention: bool | None = None
    deterministic: bool = False
    exact: bool = False
    check: Check = "sizes"
    isolate: bool = False
    trust: bool = False
    gpu: str | int | Placement = "off"
    provider: str | None = None
    provider_options: Mapping[str, str] | None = None
    prefix_cache: bool | str | os.PathLike[str] = True
    speculate: Speculate = "auto"

    def __post_init__(self) -> None:
        """Check what no later step looks at.

        Raises:
            InputError: ``cache`` is no storage, ``flash_attention`` not this backend's, ``gpu`` none of its values or
                on with ``isolate``, ``provider`` unknown or beside ``isolate``, ``gpu`` or another backend,
                ``prefix_cache`` no path, or ``speculate`` no number of tokens.
        """
        gpu = GPUOption.of(self.gpu)
        if self.isolate and not gpu.is_off:
            raise InputError(
                f"gpu is {self.gpu!r} with isolate=True, whose sandbox opens no device; drop one of the two"
            )
        self._check_provider(gpu)
        self._check_context(gpu)
        if not isinstance(self.prefix_cache, bool):
            checked_path(self.prefix_cache, "prefix_cache")
        number = isinstance(self.speculate, int) and not isinstance(self.speculate, bool)
        if self.speculate not in ("auto", "off") and not (number and 0 < int(self.speculate) <= _MAX_DRAFTS):
            raise InputError(f"speculate is {self.speculate!r}, expected 'auto', 'off' or 1 to {_MAX_DRAFTS} tokens")

    def _check_context(self, gpu: GPUOption) -> None:
        if self.cache is not None and self.cache not in CACHE_ELEMENT_BYTES:
            names = ", ".join(CACHE_ELEMENT_BYTES)
            raise InputError(f"cache is {self.cache!r}, expected one of {names}, or None for the default")
        flash = self.flash_attention
        if flash is not None and not isinstance(flash, bool):
            raise InputError(f"flash_attention is {flash!r}, expected True, False, or None for what the GPU has")
        if flash is not None and self.backend not in {"auto", "llamacpp"}:
            raise InputError(
                f"flash_attention is {flash!r} with backend={self.backend!r}, but it is llama.cpp's; drop one of "
                "the two"
            )
        is_llamacpp = self.backend == "llamacpp" or not gpu.is_off
        if flash is False and is_llamacpp and self.cache in {"int8", "int4"}:
            raise InputError(
                f"cache is {self.cache!r} with flash_attention=False, but llama.cpp stores integers only with flash "
                "attention; drop one of the two"
            )

    @property
    def wishes(self) -> ContextWishes:
        """Requested settings of llama.cpp's context."""
        return ContextWishes(cache=self.cache, batch=self.batch, flash_attention=self.flash_attention)

    def _check_provider(self, gpu: GPUOption) -> None:
        if self.provider is None:
            if self.provider_options is not None:
                raise InputError(f"provider_options is {self.provider_options!r} without a provider; name one")
            return
        ProviderSettings.of(self.provider, self.provider_options)
        others = {"isolate=True": self.isolate, f"gpu={self.gpu!r}": not gpu.is_off}
        others[f"backend={self.backend!r}"] = self.backend not in {"auto", "onnx"}
        if found := [name for name, is_set in others.items() if is_set]:
            raise InputError(
                f"provider is {self.provider!r} with {', '.join(found)}, but providers are the onnx backend's, and the "
                "sandbox of isolate opens no device; drop one of the two"
            )

    def provider_settings(self, accelerator: Accelerator | None) -> ProviderSettings | None:
        """The provider with the options for a device's GPU; ``None`` without one."""
        return ProviderSettings.of(self.provider, self.provider_options, accelerator) if self.provider else None

    @property
    def backend_name(self) -> str:
        """``backend``; a provider is the onnx backend's."""
        return self.backend if self.provider is None else "onnx"

    @classmethod
    def of(cls, function: str, keywords: LoadKeywords) -> Self:
        """The record of ``function``'s keyword arguments; TypeError for one that does not exist."""
        return record_of(cls, function, keywords)
