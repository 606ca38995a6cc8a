"""``python -m sprat`` and the ``sprat`` command."""

from __future__ import annotations

from sprat.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
