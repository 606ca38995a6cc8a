"""The kernel contract and its implementations."""

from __future__ import annotations

from sprat.arrays import I32Array
from sprat.runtime.kernels.contract import ChoiceObserver, Kernels, MLAForm, Routes
from sprat.runtime.kernels.layers import MLP, GatedMLP, GroupedAttention, Head, LatentAttention, MoE
from sprat.runtime.kernels.reference import ReferenceKernels

__all__ = [
    "MLP",
    "ChoiceObserver",
    "GatedMLP",
    "GroupedAttention",
    "Head",
    "I32Array",
    "Kernels",
    "LatentAttention",
    "MLAForm",
    "MoE",
    "ReferenceKernels",
    "Routes",
]
