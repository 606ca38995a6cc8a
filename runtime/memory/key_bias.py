"""Whether the keys of a model may be stored in int8."""

from __future__ import annotations

import numpy as np

from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.model_file import ModelFile

__all__ = ["has_large_key_bias"]

_LARGE_KEY_BIAS = 32.0  # a step of the scale is then a quarter; without biases keys are about 1


def has_large_key_bias(file: ModelFile) -> bool:
    """Whether a key bias of a model is so large that keys lose precision in an int8 cache (docs/architecture.md).

    Elements of a key share a scale, and a bias takes the precision of the others; only the biases are read.
    """
    if not isinstance(file, GGUFFile):
        return False
    names = (name for name in file.tensors if name.endswith("attn_k.bias"))
    return any(float(np.abs(file.weight(name).dequantize()).max()) > _LARGE_KEY_BIAS for name in names)
