"""Options of an ONNX graph."""

from __future__ import annotations

from dataclasses import dataclass

from sprat.export.onnx.ort_version import LOWEST, OrtVersion

__all__ = ["OnnxOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxOptions:
    """Options of an ONNX graph.

    Attributes:
        block_size: weights per scale: 32, 64 or 128; rows that do not divide into such blocks get smaller ones.
        accuracy_level: of ``MatMulNBits``: 0 keeps activations in float32, 4 allows int8, which is faster.
        portable: use standard operators only, no contrib operators.
        ort: the oldest onnxruntime that must load the graph; later ones load it too.
        context: tokens that onnxruntime-genai reserves its cache for; by default the model's limit, at most
            :data:`~sprat.runtime.memory.footprint.DEFAULT_CONTEXT`.
    """

    block_size: int = 32
    accuracy_level: int = 4
    portable: bool = False
    ort: OrtVersion = LOWEST
    context: int | None = None
