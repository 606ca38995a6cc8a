"""GGUF files of published shapes with random weights, for measuring speed: same bytes, same work, no download.

Every format takes part through its own quantizer: a buffer of normal numbers is packed once and repeated. Projections
into the residual stream are small, so that hidden states stay near the tokens' embeddings and tokens choose different
experts.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.errors import ExportError
from sprat.export.gguf.layout import Layout, PlannedTensor, plan_layout
from sprat.export.write.writer import write_file
from sprat.files import cache_folder
from sprat.progress import ReportProgress, no_progress
from sprat.quant.formats import format_names, get_format
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.gguf_keys import metadata_from_spec
from sprat.runtime.arch.presets import shape_spec
from sprat.runtime.arch.spec import FrequencyFactors, ModelSpec
from sprat.runtime.arch.tensors import ROPE_FREQS, expected_tensors

__all__ = ["cached_shape", "clear_cache", "shape_cache", "write_shape"]

_PAGE = 4096  # mixtures are laid on pages, as `sprat export` does
_POOL_BLOCKS = 65_521  # a prime: the same blocks meet a row at another place each time they come around
_INTO_RESIDUAL = ("attn_output", "ffn_down")
_INTO_RESIDUAL_SCALE = 0.02


def write_shape(
    path: Path,
    shape: str,
    quant: str = "Q4_0",
    layers: int | None = None,
    *,
    progress: ReportProgress = no_progress,
) -> ModelSpec:
    """Write a file of ``shape``, or finish writing it.

    Args:
        path: the file; its folder exists.
        shape: a name of :func:`~sprat.runtime.arch.presets.shape_names`.
        quant: a recipe (``int4``), or a block format for all matrices.
        layers: layers to write; ``None`` for all.
        progress: called after each chunk.

    Raises:
        InputError: no such shape, quantization or number of layers.
        ExportError: no room for it on the disk, which is said before anything is written, or no rights.
    """
    spec = shape_spec(shape, layers=layers)
    write_file(path, _layout(spec, shape, quant), functools.partial(_pack, spec), progress=progress)
    return spec


def cached_shape(
    shape: str, quant: str = "Q4_0", layers: int | None = None, *, progress: ReportProgress = no_progress
) -> Path:
    """The file of ``shape`` in the user's cache folder, written at its first use; otherwise like :func:`write_shape`.

    Raises:
        InputError: as :func:`write_shape`.
        ExportError: the same.
    """
    spec = shape_spec(shape, layers=layers)
    layout = _layout(spec, shape, quant)
    path = shape_cache() / f"{shape}-{spec.n_layers}-layers-{quant.upper()}.gguf"
    if not _holds(path, layout):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, layout, functools.partial(_pack, spec), progress=progress)
    return path


def shape_cache() -> Path:
    """Where :func:`cached_shape` keeps its files; need not exist."""
    return cache_folder() / "shapes"


def clear_cache() -> int:
    """Remove all files of :func:`cached_shape`, unfinished ones too; returns their bytes.

    Raises:
        ExportError: one cannot be removed.
    """
    freed = 0
    for path in shape_cache().glob("*"):
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError as error:
            raise ExportError(f"{path}: cannot be removed ({error.strerror}); {freed:,} bytes were freed") from error
        freed += size
    return freed


def _layout(spec: ModelSpec, shape: str, quant: str) -> Layout:
    tied = spec.tied_embeddings
    single = quant.upper() in format_names()
    recipe = Recipe(quant, get_format(quant)) if single else Recipe.named(quant, tied_embeddings=tied)
    planned = [
        PlannedTensor(name, size, recipe.choose(name, size).format) for name, size in expected_tensors(spec).items()
    ]
    keys = {
        "general.architecture": str(spec.architecture),
        "general.name": f"{shape} (random weights)",
        "tokenizer.ggml.model": "none",
        **metadata_from_spec(spec),
    }
    return plan_layout(keys, planned, **({"alignment": _PAGE} if spec.moe else {}))


def _holds(path: Path, layout: Layout) -> bool:
    """Whether the file is there and has this very header: its weights depend on nothing else."""
    if not path.is_file() or path.stat().st_size != layout.nbytes:
        return False
    with path.open("rb") as file:
        return file.read(len(layout.header)) == layout.header


def _pack(spec: ModelSpec, tensor: PlannedTensor) -> Iterator[U8Array]:
    if len(tensor.shape) == 1:
        yield tensor.format.quantize(_vector(spec, tensor)).ravel()
        return
    scale = 1.0 if "token_embd" in tensor.name else tensor.shape[-1] ** -0.5
    if any(part in tensor.name for part in _INTO_RESIDUAL):
        scale *= _INTO_RESIDUAL_SCALE
    if "ffn_gate_inp" in tensor.name:  # routers that agree would send a token to the same experts in every layer
        yield _normal(tensor, scale, seed=zlib.crc32(tensor.name.encode()))
        return
    # No two tensors may be alike: onnxruntime finds such out, and keeps one of them in memory.
    pool = _pool(tensor.format.name, scale)
    pool = np.roll(pool, zlib.crc32(tensor.name.encode()) % _POOL_BLOCKS * tensor.format.block_bytes)
    for start in range(0, tensor.nbytes, pool.size):
        yield pool[: tensor.nbytes - start]


def _vector(spec: ModelSpec, tensor: PlannedTensor) -> F32Array:
    """Norms change nothing, biases add nothing; the divisors of rope are the model's own."""
    if tensor.name == ROPE_FREQS and isinstance(spec.rope.scaling, FrequencyFactors):
        return np.array(spec.rope.scaling.factors, np.float32)
    return np.full(tensor.shape, 1.0 if "norm" in tensor.name else 0.0, np.float32)


def _normal(tensor: PlannedTensor, scale: float, seed: int) -> U8Array:
    numbers = np.random.default_rng(seed).normal(size=tensor.shape) * scale
    return tensor.format.quantize(numbers.astype(np.float32)).ravel()


@functools.lru_cache(maxsize=4)
def _pool(format_name: str, scale: float) -> U8Array:
    """Blocks of normal numbers, packed once."""
    stored = get_format(format_name)
    size = (_POOL_BLOCKS // max(1, stored.block_size // 32), stored.block_size)
    numbers = np.random.default_rng(7).normal(size=size) * scale
    return stored.quantize(numbers.astype(np.float32)).ravel()
