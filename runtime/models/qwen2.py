"""Qwen2 (arXiv 2407.10671), as DeepSeek-R1-Distill-Qwen: Llama with biases on queries, keys and values.

Its rope pairs the halves of a head and not neighbours. Both differences are numbers of the spec, so the forward pass
is Llama's.
"""

from __future__ import annotations

from sprat.runtime.models.llama import Llama
from sprat.runtime.spec import Architecture

__all__ = ["Qwen2"]


class Qwen2(Llama, architecture=Architecture.QWEN2):
    """See the module."""
