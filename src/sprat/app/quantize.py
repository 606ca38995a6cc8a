"""``sprat quantize``: a GGUF file to another block format."""

from __future__ import annotations

from sprat.export.gguf.quantize import quantize

__all__ = ["quantize"]
