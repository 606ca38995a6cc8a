"""Old GGUF files of DeepSeek: ``attn_kv_b``, which newer files hold split into ``attn_k_b`` and ``attn_v_b``.

llama.cpp's converter splits it since April 2025. Per head, the tensor has ``qk_nope_head_dim`` rows that make keys and
``v_head_dim`` rows that make values. The first become ``attn_k_b``, transposed per head so that it can be absorbed into
the query; the others are ``attn_v_b`` (:mod:`sprat.runtime.arch.attention.latent`). The reader makes both in memory
when they are first used. Values keep their format; transposed elements cannot stay in blocks, so the keys of a
quantized file become F16, which holds every weight to 11 bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sprat.alignment import round_up
from sprat.arrays import U8Array
from sprat.quant.formats import BlockFormat, get_format
from sprat.quant.formats.read_only import any_format
from sprat.runtime.arch.attention import LatentAttentionSpec
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import expected_tensors
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.gguf_checks import TensorInfo
from sprat.runtime.files.shape_checks import Shapes

__all__ = ["KV_B", "kv_b_shape", "split_latent_tensors", "unsplit_layers"]

KV_B = "attn_kv_b.weight"
_ALIGNMENT = 64


def unsplit_layers(spec: ModelSpec, shapes: Shapes) -> dict[str, tuple[str, ...]]:
    """Prefix of each layer with ``attn_kv_b`` -> the tensors that must be made from it: both, or none.

    Some files hold ``attn_kv_b`` beside the other two, which are then used if they have the expected shapes.

    Args:
        spec: the architecture.
        shapes: name -> shape of every tensor in the file.
    """
    if not isinstance(spec.attention, LatentAttentionSpec):
        return {}
    expected = expected_tensors(spec)
    layers: dict[str, tuple[str, ...]] = {}
    for prefix in (f"blk.{index}." for index in range(spec.n_layers)):
        if shapes.get(prefix + KV_B) == kv_b_shape(spec.attention):
            names = (f"{prefix}attn_k_b.weight", f"{prefix}attn_v_b.weight")
            are_there = all(shapes.get(name) == expected[name] for name in names)
            layers[prefix] = () if are_there else names
    return layers


def kv_b_shape(attention: LatentAttentionSpec) -> tuple[int, int]:
    """Shape of ``attn_kv_b``."""
    return attention.n_heads * (attention.qk_nope_head_dim + attention.v_head_dim), attention.kv_lora_rank


def split_latent_tensors(file: GGUFFile, spec: ModelSpec) -> GGUFFile:
    """``file`` with ``attn_k_b`` and ``attn_v_b`` in the place of every ``attn_kv_b``; nothing is read yet.

    Args:
        file: an open file, of any layout.
        spec: its architecture.
    """
    layers = unsplit_layers(spec, {name: info.shape for name, info in file.tensors.items()})
    if not layers:
        return file
    made = _MadeTensors(file, spec, tuple(prefix for prefix, names in layers.items() if names))
    left_out = {prefix + KV_B for prefix in layers} | {name for names in layers.values() for name in names}
    kept = {name: info for name, info in file.tensors.items() if name not in left_out}
    infos = {info.name: replace(info, part=len(file.parts)) for info in made.infos}
    return replace(file, tensors=kept | infos, parts=(*file.parts, made))


@dataclass(frozen=True)
class _MadeTensors:
    """The tensors of all layers one after the other, computed when the first is read."""

    file: GGUFFile
    spec: ModelSpec
    prefixes: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The file that they come from."""
        return self.file.path

    @property
    def nbytes(self) -> int:
        """Their bytes in memory."""
        return self.infos[-1].end if self.infos else 0

    @functools.cached_property
    def infos(self) -> tuple[TensorInfo, ...]:
        """Names, shapes, formats and offsets."""
        infos: list[TensorInfo] = []
        shapes = expected_tensors(self.spec)
        for name, format in self._formats():
            offset = round_up(infos[-1].end, _ALIGNMENT) if infos else 0
            nbytes = math.prod(shapes[name][:-1]) * format.row_bytes(shapes[name][-1])
            infos.append(TensorInfo(name, shapes[name], format.ggml_type, offset, nbytes))
        return tuple(infos)

    @functools.cached_property
    def bytes(self) -> U8Array:
        """The tensors, made now."""
        data = np.empty(self.nbytes, np.uint8)
        for info, made in zip(self.infos, self._tensors(), strict=True):
            data[info.offset : info.end] = made.reshape(-1)
        return data

    def _formats(self) -> Iterator[tuple[str, BlockFormat]]:
        for prefix in self.prefixes:
            source = any_format(self.file.tensors[prefix + KV_B].format_type)
            yield f"{prefix}attn_k_b.weight", source if source.block_size == 1 else get_format("F16")
            yield f"{prefix}attn_v_b.weight", source

    def _tensors(self) -> Iterator[U8Array]:
        attention = self.spec.attention
        assert isinstance(attention, LatentAttentionSpec), "only latent attention has attn_kv_b"
        nope = attention.qk_nope_head_dim
        for prefix in self.prefixes:
            weight = self.file.weight(prefix + KV_B)
            heads = weight.packed.reshape(attention.n_heads, nope + attention.v_head_dim, -1)
            yield _transposed(heads[:, :nope], weight.format)
            yield np.ascontiguousarray(heads[:, nope:])


def _transposed(rows: U8Array, format: BlockFormat) -> U8Array:
    """Rows ``(n_heads, nope, row_bytes)`` as ``(n_heads, rank, nope)`` in the format of ``attn_k_b``."""
    rows = np.ascontiguousarray(rows)
    if format.block_size == 1:
        elements = rows.view(f"u{format.block_bytes}")
    else:
        elements = format.dequantize(rows).astype(np.float16)
    return np.ascontiguousarray(elements.swapaxes(1, 2)).view(np.uint8)
