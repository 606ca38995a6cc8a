"""Experts that transformers 5 stores fused, as slices of the file under the names that published checkpoints use.

::

    experts.gate_up_proj              (n_experts, 2 * width, hidden)      gate above up
    experts.down_proj                 (n_experts, hidden, width)
    experts.gate_up_proj_scale_inv    the same of FP8 scales, even where the codes are stored one expert each
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from sprat.export.source.file import FileTensor

__all__ = ["split_experts"]

_FUSED = re.compile(r"(.*\.experts)\.(gate_up_proj|down_proj)(?:\.weight)?(_scale_inv)?")
_PARTS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}


def split_experts(stored: Mapping[str, FileTensor]) -> dict[str, FileTensor]:
    """``stored`` with every fused tensor replaced by one tensor per expert and matrix."""
    found: dict[str, FileTensor] = {}
    for name, tensor in stored.items():
        match = _FUSED.fullmatch(name)
        if match and len(tensor.shape) == 3 and tensor.shape[1] % len(_PARTS[match[2]]) == 0:
            found |= dict(_slices(tensor, match[1], _PARTS[match[2]], match[3] or ""))
        else:
            found[name] = tensor
    return found


def _slices(tensor: FileTensor, prefix: str, parts: tuple[str, ...], suffix: str) -> Iterator[tuple[str, FileTensor]]:
    n_experts, n_rows, n_columns = tensor.shape
    shape = (n_rows // len(parts), n_columns)
    step = shape[0] * tensor.format.row_bytes(n_columns)
    for index in range(n_experts * len(parts)):
        expert, part = divmod(index, len(parts))
        name = f"{prefix}.{expert}.{parts[part]}.weight{suffix}"
        yield name, replace(tensor, name=name, shape=shape, offset=tensor.offset + index * step)
