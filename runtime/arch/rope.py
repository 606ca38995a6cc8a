"""Rotary position embedding: the angles of each position, with linear scaling, YaRN or Llama 3.1's scaling.

Angles depend on the position alone: a forward pass computes them once for all layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sprat.arrays import F32Array, F64Array

__all__ = [
    "FrequencyFactors",
    "LinearScaling",
    "RopeAngles",
    "RopeScaling",
    "RopeSpec",
    "RopeTable",
    "YarnScaling",
    "llama3_factors",
    "rope_frequencies",
    "rope_magnitude",
    "yarn_magnitude",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class YarnScaling:
    """YaRN (arXiv 2309.00071) as DeepSeek applies it.

    cos and sin are multiplied by ``m(factor, mscale) / m(factor, mscale_all_dim)`` and, with MLA, attention scores by
    ``m(factor, mscale_all_dim) ** 2``, where ``m(f, s) = 0.1 * s * ln(f) + 1``.
    """

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether the ramp and the magnitudes can be computed from these values; all published ones are far inside."""
        return (
            0 < self.factor < 1e6
            and 0 < self.original_max_position_embeddings < 1 << 40
            and all(1e-6 < beta < 1e6 for beta in (self.beta_fast, self.beta_slow))
            and all(0 < yarn_magnitude(self.factor, scale) < 1e6 for scale in (self.mscale, self.mscale_all_dim))
        )


@dataclass(frozen=True, slots=True)
class FrequencyFactors:
    """Divisors of the rotary frequencies, one per pair: Llama 3.1's scaling, as GGUF's ``rope_freqs.weight`` holds it.

    The values are exactly representable in float32, the type of that tensor.
    """

    factors: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearScaling:
    """Position interpolation (arXiv 2306.15595): every frequency is divided by ``factor``."""

    factor: float

    @property
    def is_sound(self) -> bool:
        """Whether the factor is a usual one."""
        return 0 < self.factor < 1e6


RopeScaling = YarnScaling | LinearScaling | FrequencyFactors


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeSpec:
    """Rotary position embedding over ``dim`` elements per head.

    ``interleaved`` rotates pairs (2i, 2i+1), as in GGUF's llama and deepseek2 files; otherwise (i, i+dim/2), as in
    qwen2.
    """

    dim: int
    theta: float
    interleaved: bool
    scaling: RopeScaling | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RopeAngles:
    """Cosines and sines of positions, ``(n, dim / 2)`` each, multiplied by YaRN's magnitude."""

    cos: F32Array
    sin: F32Array
    interleaved: bool

    def row(self, index: int) -> RopeAngles:
        """The angles of one of the positions."""
        return RopeAngles(self.cos[index : index + 1], self.sin[index : index + 1], self.interleaved)


class RopeTable:
    """Angles by position; the table grows with the positions requested."""

    def __init__(self, spec: RopeSpec) -> None:
        self._interleaved = spec.interleaved
        self._frequencies = rope_frequencies(spec)
        self._magnitude = rope_magnitude(spec)
        self._table = self._computed(64)

    def angles(self, start: int, n: int) -> RopeAngles:
        """Angles of positions ``start`` to ``start + n - 1``."""
        end = start + n
        table = self._table
        if end > len(table[0]):
            table = self._table = self._computed(max(end, 2 * len(table[0])))
        cos, sin = table
        return RopeAngles(cos[start:end], sin[start:end], self._interleaved)

    def angles_at(self, positions: Sequence[int]) -> RopeAngles:
        """Angles of any positions."""
        whole = self.angles(0, max(positions) + 1)
        rows = np.asarray(positions)
        return RopeAngles(whole.cos[rows], whole.sin[rows], self._interleaved)

    def _computed(self, n_positions: int) -> tuple[F32Array, F32Array]:
        radians = np.arange(n_positions)[:, None] * self._frequencies
        cos, sin = np.cos(radians) * self._magnitude, np.sin(radians) * self._magnitude
        return cos.astype(np.float32), sin.astype(np.float32)


def yarn_magnitude(factor: float, mscale: float) -> float:
    """YaRN's ``m(factor, mscale)``: attention scaling for a context ``factor`` times longer (arXiv 2309.00071)."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def llama3_factors(
    dim: int, theta: float, *, factor: float, low_freq_factor: float, high_freq_factor: float, original_context: int
) -> FrequencyFactors:
    """Llama 3.1's divisors: 1 for short wavelengths, ``factor`` for long ones, interpolated between.

    A pair that turns more than ``high_freq_factor`` times in the original context is unchanged, one that turns less
    than ``low_freq_factor`` times is divided by ``factor`` (``apply_scaling`` of Llama 3.1's reference implementation).
    """
    turns = original_context * _base_frequencies(dim, theta) / (2 * math.pi)
    with np.errstate(all="ignore"):  # what is not finite is refused with the other dimensions
        smooth = np.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0.0, 1.0)
        divisors = 1.0 / ((1 - smooth) / factor + smooth)
        return FrequencyFactors(tuple(divisors.astype(np.float32).tolist()))


def _base_frequencies(dim: int, theta: float) -> F64Array:
    return np.asarray(theta ** (-np.arange(0, dim, 2, dtype=np.float64) / dim))


def rope_frequencies(spec: RopeSpec) -> F64Array:
    """Radians per position of each pair, including the scaling; float64 ``(dim / 2,)``."""
    base = _base_frequencies(spec.dim, spec.theta)
    match spec.scaling:
        case None:
            return base
        case LinearScaling(factor=factor):
            return np.asarray(base / factor)
        case FrequencyFactors(factors):
            return np.asarray(base / np.array(factors))
        case YarnScaling() as yarn:
            ramp = _yarn_ramp(spec, yarn)
            return np.asarray(base * (1 - ramp) + base / yarn.factor * ramp)


def _yarn_ramp(spec: RopeSpec, yarn: YarnScaling) -> F64Array:
    """Interpolation of each pair, 0 to 1: 0 if it turns ``beta_fast`` times or more in the original context."""

    def pair_turning(n_turns: float) -> float:
        wavelength = yarn.original_max_position_embeddings / (n_turns * 2 * math.pi)
        return spec.dim * math.log(wavelength) / (2 * math.log(spec.theta))

    low = max(math.floor(pair_turning(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_turning(yarn.beta_slow)), spec.dim - 1)
    return np.clip((np.arange(spec.dim // 2) - low) / max(high - low, 0.001), 0.0, 1.0)


def rope_magnitude(spec: RopeSpec) -> float:
    """The factor on cosines and sines; 1 without YaRN."""
    if not isinstance(spec.scaling, YarnScaling):
        return 1.0
    yarn = spec.scaling
    return yarn_magnitude(yarn.factor, yarn.mscale) / yarn_magnitude(yarn.factor, yarn.mscale_all_dim)
