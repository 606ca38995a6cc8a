"""Qwen2 (arXiv 2407.10671), as DeepSeek-R1-Distill-Qwen: Llama with biases on queries, keys and values.

Its rope pairs the halves of a head and not neighbours. Both differences are numbers of the spec, so the forward pass
is Llama's.
"""

from __future__ import annotations

from sprat.runtime.arch.spec import Architecture
from sprat.runtime.models.llama import Llama

__all__ = ["Qwen2"]


class Qwen2(Llama, architecture=Architecture.QWEN2):
    """See the module."""
