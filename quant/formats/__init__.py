"""Block formats: one file each family, one class each format; importing this package registers all of them."""

from __future__ import annotations

from sprat.quant.formats.block import BlockFormat, format_names, format_of_type, get_format

__all__ = ["BlockFormat", "format_names", "format_of_type", "get_format"]
