"""GGUF files of published models with random weights, to measure speed without a download.

A buffer of normally distributed values is quantized once per format and repeated. Projections into the residual stream
are scaled down, so that hidden states stay near the token embeddings and tokens are routed to different experts.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.errors import ExportError
from sprat.export.gguf.layout import GGUFLayout, TensorEntry, gguf_layout
from sprat.export.write.writer import write_file
from sprat.files import cache_folder
from sprat.progress import ReportProgress, no_progress
from sprat.quant.formats import format_names, get_format
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.gguf_keys import metadata_from_spec
from sprat.runtime.arch.model_shape import shape_of_keys
from sprat.runtime.arch.presets import preset_spec
from sprat.runtime.arch.rope import FrequencyFactors
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import ROPE_FREQS, expected_tensors

__all__ = ["cached_preset", "clear_cache", "preset_cache", "write_preset", "write_random"]

_POOL_BLOCKS = 65_521  # prime, so that repeated blocks are at different offsets in the rows
_INTO_RESIDUAL = ("attn_output", "ffn_down")
_INTO_RESIDUAL_SCALE = 0.02
_NO_TOKENIZER = {"tokenizer.ggml.model": "none"}


def write_preset(
    path: Path,
    preset: str,
    quant: str = "Q4_0",
    layers: int | None = None,
    *,
    progress: ReportProgress = no_progress,
) -> ModelSpec:
    """Write a file of ``preset``, or continue an interrupted write.

    Args:
        path: the file, in an existing folder.
        preset: a name of :func:`~sprat.runtime.arch.presets.preset_names`.
        quant: a recipe (``int4``), or a block format for all matrices.
        layers: number of layers; ``None`` for all.
        progress: called after each chunk.

    Raises:
        InputError: unknown preset or format, or wrong number of layers.
        ExportError: not enough free space, checked before anything is written, or no permission.
    """
    spec = _without_mtp(preset, layers)
    write_random(path, spec, preset, quant, progress=progress)
    return spec


def write_random(
    path: Path,
    spec: ModelSpec,
    name: str,
    quant: str = "Q4_0",
    *,
    tokenizer: Mapping[str, Any] = _NO_TOKENIZER,
    progress: ReportProgress = no_progress,
) -> None:
    """Write a file of a model called ``name``, with the keys of a tokenizer; otherwise as :func:`write_preset`."""
    write_file(path, _layout(spec, name, quant, tokenizer), functools.partial(_pack, spec), progress=progress)


def cached_preset(
    preset: str, quant: str = "Q4_0", layers: int | None = None, *, progress: ReportProgress = no_progress
) -> Path:
    """The file of ``preset`` in the user's cache folder, written at first use by :func:`write_preset`.

    Raises:
        InputError: as :func:`write_preset`.
        ExportError: as :func:`write_preset`.
    """
    spec = _without_mtp(preset, layers)
    layout = _layout(spec, preset, quant)
    path = preset_cache() / f"{preset}-{spec.n_layers}-layers-{quant.upper()}.gguf"
    if not _is_current(path, layout):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, layout, functools.partial(_pack, spec), progress=progress)
    return path


def preset_cache() -> Path:
    """The folder of :func:`cached_preset`; need not exist."""
    return cache_folder() / "shapes"


def clear_cache() -> int:
    """Delete all files of :func:`cached_preset`, unfinished ones included; returns the bytes freed.

    Raises:
        ExportError: a file cannot be deleted.
    """
    freed = 0
    for path in preset_cache().glob("*"):
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError as error:
            raise ExportError(f"{path}: cannot be deleted ({error.strerror}); {freed:,} bytes were freed") from error
        freed += size
    return freed


def _without_mtp(preset: str, layers: int | None) -> ModelSpec:
    """The spec of a preset; layers that never run get no weights."""
    return replace(preset_spec(preset, layers=layers), n_mtp_layers=0)


def _layout(spec: ModelSpec, preset: str, quant: str, tokenizer: Mapping[str, Any] = _NO_TOKENIZER) -> GGUFLayout:
    tied = spec.tied_embeddings
    single = quant.upper() in format_names()
    model = shape_of_keys({"general.architecture": spec.architecture, **metadata_from_spec(spec)})
    recipe = Recipe(quant, get_format(quant)) if single else Recipe.named(quant, tied_embeddings=tied, model=model)
    entries = [
        TensorEntry(name, shape, recipe.choose(name, shape).format) for name, shape in expected_tensors(spec).items()
    ]
    keys = {
        "general.architecture": str(spec.architecture),
        "general.name": f"{preset} (random weights)",
        **tokenizer,
        **metadata_from_spec(spec),
    }
    return gguf_layout(keys, entries)


def _is_current(path: Path, layout: GGUFLayout) -> bool:
    """Whether the file exists with this header and size; the header determines the weights."""
    if not path.is_file() or path.stat().st_size != layout.nbytes:
        return False
    with path.open("rb") as file:
        return file.read(len(layout.header)) == layout.header


def _pack(spec: ModelSpec, tensor: TensorEntry) -> Iterator[U8Array]:
    if len(tensor.shape) == 1:
        yield tensor.format.quantize(_vector(spec, tensor)).ravel()
        return
    scale = 1.0 if "token_embd" in tensor.name else tensor.shape[-1] ** -0.5
    if any(part in tensor.name for part in _INTO_RESIDUAL):
        scale *= _INTO_RESIDUAL_SCALE
    if "ffn_gate_inp" in tensor.name:  # equal routers would choose the same experts in every layer
        yield _normal(tensor, scale, seed=zlib.crc32(tensor.name.encode()))
        return
    # No two tensors may be equal: onnxruntime deduplicates equal initializers.
    pool = _pool(tensor.format.name, scale)
    pool = np.roll(pool, zlib.crc32(tensor.name.encode()) % _POOL_BLOCKS * tensor.format.block_bytes)
    for start in range(0, tensor.nbytes, pool.size):
        yield pool[: tensor.nbytes - start]


def _vector(spec: ModelSpec, tensor: TensorEntry) -> F32Array:
    """Gains of 1, biases of 0, and the model's RoPE factors."""
    if tensor.name == ROPE_FREQS and isinstance(spec.rope.scaling, FrequencyFactors):
        return np.array(spec.rope.scaling.factors, np.float32)
    return np.full(tensor.shape, 1.0 if "norm" in tensor.name else 0.0, np.float32)


def _normal(tensor: TensorEntry, scale: float, seed: int) -> U8Array:
    values = np.random.default_rng(seed).normal(size=tensor.shape) * scale
    return tensor.format.quantize(values.astype(np.float32)).ravel()


@functools.lru_cache(maxsize=4)
def _pool(format_name: str, scale: float) -> U8Array:
    """Quantized blocks of normally distributed values."""
    format = get_format(format_name)
    shape = (_POOL_BLOCKS // max(1, format.block_size // 32), format.block_size)
    values = np.random.default_rng(7).normal(size=shape) * scale
    return format.quantize(values.astype(np.float32)).ravel()
