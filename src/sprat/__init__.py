"""sprat carries DeepSeek students to the edge: export, verify, plan and run them on small devices."""

from __future__ import annotations

from sprat.errors import SpratError

__all__ = ["SpratError"]


def __getattr__(name: str) -> str:
    # The version is looked up when asked for: importlib.metadata costs more than all the rest of `import sprat`.
    if name == "__version__":
        from importlib.metadata import version

        return version("sprat")
    raise AttributeError(f"module 'sprat' has no attribute {name!r}")
