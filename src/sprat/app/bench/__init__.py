"""``sprat bench``: measure a model in a child process, on this machine or under the limits of an emulated device."""

from __future__ import annotations

from sprat.app.bench.run import bench

__all__ = ["bench"]
