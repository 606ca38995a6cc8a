"""``sprat bench``: tests of one model in a child process of their own, on this machine or under a device's limits."""

from __future__ import annotations

from sprat.app.bench.run import BenchOptions, bench

__all__ = ["BenchOptions", "bench"]
