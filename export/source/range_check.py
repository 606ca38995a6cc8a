"""Whether every weight of an export is within the range of the format that stores it.

A float16 scale or weight beyond 65504 is written as infinity: by :mod:`sprat.quant`, and by ggml's quantizers. The pass
over the source gives an upper bound of each tensor's magnitudes at no cost. Only a tensor whose bound exceeds its
format's range is read again here, to find the weight.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sprat.errors import FormatError
from sprat.export.source.rows import Measured
from sprat.export.source.tensor import SourceTensor
from sprat.quant.formats import BlockFormat, get_format

__all__ = ["check_range"]

_WIDER = ("Q8_0", "BF16", "F32")  # GGUF and ONNX have all three
_FUSED, _PARTS = "ffn_gate_up_exps", "ffn_(gate|up)_exps"  # ONNX stores two tensors as one; rules name them singly


def check_range(path: Path, targets: Iterable[tuple[SourceTensor, BlockFormat]], measured: Measured) -> None:
    """Check that no weight would become infinite, NaN, or be clipped.

    Args:
        path: the source, for the message.
        targets: each tensor and the format that it is written in.
        measured: a tensor of a file -> an upper bound of its magnitudes.

    Raises:
        FormatError: a weight exceeds its format's range; the message names a format that holds it.
    """
    for tensor, target in targets:
        if tensor.format is target:
            continue  # copied as it is
        if tensor.rows.bound(measured) > target.largest and (found := _first_beyond(tensor, target.largest)):
            index, value = found
            raise FormatError(
                f"{path}: {tensor.name} holds {value:g} at {list(index)}; {target.name} stores magnitudes up to "
                f"{target.largest:g}, and nothing was written. {_remedy(tensor, target, abs(value))}"
            )


def _first_beyond(tensor: SourceTensor, largest: float) -> tuple[tuple[int, ...], float] | None:
    """Index and value of the first weight beyond ``largest``, or that is NaN."""
    start = 0
    for chunk in tensor.chunks():
        weights = tensor.format.dequantize(chunk)
        beyond = ~(np.abs(weights) <= largest)
        if beyond.any():
            first = int(beyond.argmax())
            index = np.unravel_index(start + first, tensor.shape)
            return tuple(map(int, index)), float(weights.flat[first])
        start += weights.size
    return None


def _remedy(tensor: SourceTensor, target: BlockFormat, value: float) -> str:
    for wider in map(get_format, _WIDER):
        if (
            value <= wider.largest
            and wider.bits_per_weight > target.bits_per_weight
            and wider.divides(tensor.shape[-1])
        ):
            rule = f"{tensor.name.replace(_FUSED, _PARTS)}={wider.name.lower()}"
            return f"{wider.name} holds it: add --tensor '{rule}', or repair the checkpoint"
    return "No format holds it: repair the checkpoint"
