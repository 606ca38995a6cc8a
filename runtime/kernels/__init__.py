"""The kernel contract and its implementations."""

from __future__ import annotations

from sprat.runtime.kernels.contract import MLP, I32Array, Kernels, Routes
from sprat.runtime.kernels.reference import ReferenceKernels

__all__ = ["MLP", "I32Array", "Kernels", "ReferenceKernels", "Routes"]
