"""One architecture, one file: the forward pass in Python over kernels. Importing this package registers all of them."""

from __future__ import annotations

from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.kernels import Kernels
from sprat.runtime.models import deepseek, llama, qwen2
from sprat.runtime.models.model import Model, RoutingObserver, model_class
from sprat.runtime.weights import WeightSource

__all__ = ["Model", "RoutingObserver", "deepseek", "llama", "load_model", "qwen2"]


def load_model(spec: ModelSpec, weights: WeightSource, kernels: Kernels) -> Model:
    """The model of ``spec`` over ``weights``. Matrices stay packed where they lie; only norms and biases are read.

    Raises:
        InputError: a tensor is missing or has another shape than ``spec`` demands.
    """
    return model_class(spec.architecture)(spec, weights, kernels)
