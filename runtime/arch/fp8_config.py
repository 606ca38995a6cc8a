"""``quantization_config`` of an FP8 checkpoint: E4M3 codes with a scale per block, both tensors of the file.

DeepSeek writes it for V3, R1 (float32 scales) and V3.1 (``"scale_fmt": "ue8m0"``), Qwen for Qwen3, transformers 5 for
every architecture (``FineGrainedFP8Config``). The quantization of activations is ignored: only weights are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sprat.runtime.arch.fields import Fields

__all__ = ["check_fp8", "fp8_block", "is_fp8"]

_METHODS = ("fp8", "mxfp8")
_DEFAULT_BLOCK = {"fp8": (128, 128), "mxfp8": (1, 32)}
_HARMLESS = frozenset(
    {
        "activation_scheme",
        "dequantize",  # whether transformers keeps the codes in memory
        "ignored_layers",
        "modules_to_convert",
        "modules_to_not_convert",  # the types in the file say which tensors are FP8
        "use_deepgemm",
    }
)


def check_fp8(fields: Fields) -> None:
    """Record problems with ``quantization_config`` in ``fields``; it may be absent."""
    quantization = fields.nested("quantization_config")
    if not quantization.names():
        return
    quantization.must_be(
        {
            "quant_method": _METHODS,
            "fmt": ["e4m3", "float8_e4m3fn"],
            "scale_fmt": ["float", "float32", "ue8m0"],
            "expert_dtype": ["fp8"],
            "load_in_4bit": [False],
            "load_in_8bit": [False],
        }
    )
    if "quant_method" not in quantization:
        quantization.complain("quant_method", f"is missing; expected {' or '.join(_METHODS)}")
    quantization.check("weight_block_size", _is_block, "two positive sizes, such as [128, 128]")
    quantization.finish(_HARMLESS)


def is_fp8(config: Mapping[str, Any]) -> bool:
    """Whether ``config``, which :func:`check_fp8` accepted, declares FP8 weights."""
    return bool(config.get("quantization_config"))


def fp8_block(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows and columns of the FP8 weights that share a scale; ``None`` if the whole tensor does.

    Args:
        config: a config that :func:`check_fp8` accepted.
    """
    quantization = config.get("quantization_config") or {}
    default = _DEFAULT_BLOCK[quantization.get("quant_method", "fp8")]
    found = quantization.get("weight_block_size", default)
    return None if found is None else (found[0], found[1])


def _is_block(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(type(size) is int and 0 < size < 1 << 20 for size in value)
    )
