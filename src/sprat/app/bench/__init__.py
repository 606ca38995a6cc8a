"""``sprat bench``: measure a model in a child process, on this machine or under the limits of an emulated device."""

from __future__ import annotations

from sprat.app.bench.run import bench
from sprat.app.bench.speculation import SpeculationSpeed, bench_speculation

__all__ = ["SpeculationSpeed", "bench", "bench_speculation"]
