"""Calibrated ONNX weights compared with onnxruntime's ``k_quant`` at equal bytes: for ``benchmarks/quality.py``.

``k_quant`` is a method of onnxruntime-genai's builder: asymmetric blocks of 32, 4.625 bits per weight with scales of 16
and zero points of 4 bits. Embeddings and head are those of the source on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sprat.arrays import F32Array, I32Array
from sprat.export.options import ExportOptions
from sprat.export.prepare import prepare
from sprat.export.quality.budget import Tensors, tensor_bytes
from sprat.export.quality.measuring.layer_pass import LayerPass, Replaced
from sprat.export.quality.measuring.score import ratio, score
from sprat.export.quality.plan import QualityPlanner
from sprat.export.source.checkpoint import Checkpoint
from sprat.quant.formats import get_format
from sprat.runtime.weights import Weight

__all__ = ["onnx_vs_k_quant"]

_BITS = 4 + 16 / 32 + 4 / 32
_FLOAT_ENDS = ("token_embd=f16", "output.weight=f16")


def onnx_vs_k_quant(
    source: Path, calibration: list[Path], held_out: Sequence[I32Array], folder: Path
) -> dict[str, float]:
    """The quotient of divergences, and its error."""
    checkpoint = Checkpoint.open(source)
    wanted = {"formats": ["onnx"], "quant": "int4", "tensor_rules": _FLOAT_ENDS, "quality": "best"}
    before = prepare(source, folder / "onnx", ExportOptions(**wanted))
    tensors = Tensors.of({name: t.shape for name, t in checkpoint.tensors.items()}, before.recipe, "onnx")
    linears = {name: math.prod(tensors.shapes[name]) for name in tensors.choices}
    fixed = sum(tensor_bytes(tensors.shapes[name], format) for name, format in tensors.fixed.items())
    bits = 8 * (fixed + sum(linears.values()) * _BITS / 8) / tensors.n_weights
    options = ExportOptions(**wanted, target_bpw=bits, calibration=calibration).calibrated
    plan = QualityPlanner(checkpoint, before.recipe, options, before.tokenizer, lambda _recipe: 0).plan()
    ours, theirs = {}, {}
    for name in linears:
        weight = checkpoint.weight(name)
        format = plan.recipe.choose(name, weight.shape).format
        ours[name] = Weight(
            name, format, weight.shape, plan.rounding.round(name, format).reshape(*weight.shape[:-1], -1)
        )
        rounded = _k_quant(weight.dequantize())
        theirs[name] = Weight(name, get_format("F32"), weight.shape, rounded.view(np.uint8))
    layers = LayerPass(checkpoint.spec, checkpoint, held_out)
    scores = score(layers, {"ours": Replaced(checkpoint, ours), "theirs": Replaced(checkpoint, theirs)})
    value, error = ratio(scores["ours"], scores["theirs"])
    return {
        "onnx_vs_k_quant": value,
        "onnx_vs_k_quant_se": error,
        "onnx_vs_k_quant_kld": scores["ours"].mean,
        "onnx_vs_k_quant_peer_kld": scores["theirs"].mean,
    }


def _k_quant(weights: F32Array) -> F32Array:
    from onnxruntime.quantization.neural_compressor.weight_only import quant_tensor_k_quant_cpu

    codes, scale, zero = quant_tensor_k_quant_cpu(weights, num_bits=4, group_size=32)
    scale = scale.astype(np.float16).astype(np.float32)
    found = (codes.astype(np.float32) - zero.astype(np.float32)) * scale
    return np.ascontiguousarray(found.reshape(weights.shape), np.float32)
