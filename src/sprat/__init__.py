"""sprat carries DeepSeek students to the edge: export, verify, plan and run them on small devices."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from sprat.errors import SpratError

__all__ = ["SpratError", "__version__"]

try:
    __version__ = version("sprat")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+checkout"
