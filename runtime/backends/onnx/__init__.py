"""The backend over onnxruntime."""

from __future__ import annotations

from sprat.runtime.backends.onnx.backend import ONNXBackend, ONNXStream

__all__ = ["ONNXBackend", "ONNXStream"]
