"""How an ONNX graph is made: what the command line asks for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OnnxOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxOptions:
    """How a graph is made.

    Attributes:
        block_size: weights that share a scale: 32, 64 or 128; rows that it does not divide get a smaller one.
        accuracy_level: of products with quantized weights: 0 keeps activations in float32, 4 may round them to int8,
            which is faster.
        portable: standard operators only.
    """

    block_size: int = 32
    accuracy_level: int = 4
    portable: bool = False
