"""Results of measuring a model on the calibration text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sprat.arrays import F32Array

__all__ = ["Measurements"]

_DISTINCT = 1.5  # ratio of the errors of two probes from which a slope is meaningful
# Of tensors with one probe. To second order the divergence is proportional to the error; coarser formats also flip
# routes.
_STEEPNESS = 1.3


@dataclass(slots=True)
class Measurements:
    """Results of measuring a model on the calibration text.

    Attributes:
        n_tokens: tokens of the calibration text.
        kld: tensor -> probed format -> KL divergence of the model with this tensor alone in it.
        errors: tensor -> format -> error of the outputs, in a unit of the tensor's own.
        mean_squares: tensor -> mean square of its inputs, ``(n_parts, k)``.
        expert_tokens: stacked tensor -> tokens that each expert saw.
        head_moments: second moments of the head's inputs, ``(hidden, hidden)``.
    """

    n_tokens: int
    kld: dict[str, dict[str, float]] = field(default_factory=dict)
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    mean_squares: dict[str, F32Array] = field(default_factory=dict)
    expert_tokens: dict[str, list[int]] = field(default_factory=dict)
    head_moments: F32Array | None = None

    def cost(self, tensor: str, format: str) -> float:
        """The KL divergence to expect of a tensor in a format: a power law of the error through the probes.

        Below the finest probe it is proportional to the error, which holds to second order. Above, the exponent is
        that of the probes, and at least 1.
        """
        errors = {name: max(error, 1e-30) for name, error in self.errors[tensor].items()}
        probes = sorted((errors[name], max(kld, 1e-30)) for name, kld in self.kld[tensor].items())
        (fine, base), (coarse, most) = probes[0], probes[-1]
        relative = errors[format] / fine
        if relative <= 1:
            return base * relative
        slope = math.log(most / base) / math.log(coarse / fine) if coarse > _DISTINCT * fine else _STEEPNESS
        found: float = base * relative ** max(1.0, slope)
        return found
