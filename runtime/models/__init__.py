"""The forward pass: Python that calls one kernel per sublayer."""

from __future__ import annotations

from sprat.runtime.models.block import RoutingObserver
from sprat.runtime.models.layer_weights import LayerWeights
from sprat.runtime.models.model import Model

__all__ = ["LayerWeights", "Model", "RoutingObserver"]
