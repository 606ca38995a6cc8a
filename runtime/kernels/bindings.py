"""C++ views of weights and layers, each made at first use: a model asks for the same ones for every token."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from sprat.runtime.arch.rope import RopeAngles
from sprat.runtime.arch.spec import GroupScore, MoESpec, Scoring
from sprat.runtime.kernels.layers import MLP, GatedMLP, GroupedAttention, Head, LatentAttention, Layer, Mixture
from sprat.runtime.weights import Weight

if TYPE_CHECKING:
    from sprat._core import Angles, Matrix, MoE

__all__ = ["Bindings"]


class Bindings:
    """What of :mod:`sprat._core` stands for what of Python; safe to share between threads.

    Args:
        core: the native core.
    """

    def __init__(self, core: ModuleType) -> None:
        self._core = core
        self._matrices: dict[Weight, Matrix] = {}
        self._layers: dict[Layer, Any] = {}
        self._angles: tuple[RopeAngles, Angles] | None = None
        # By identity, as weights are: hashing a spec takes longer than routing a token.
        self._choices: dict[int, tuple[MoESpec, MoE]] = {}

    def matrix(self, weight: Weight) -> Matrix:
        """The packed rows of ``weight``."""
        found = self._matrices.get(weight)
        if found is None:
            *slices, rows, cols = weight.shape
            n_slices = slices[0] if slices else 1
            found = self._core.Matrix(weight.packed, weight.format.name, n_slices, rows, cols)
            self._matrices[weight] = found
        return found

    def mlp(self, mlp: MLP) -> tuple[Matrix, Matrix, Matrix]:
        """Gate, up and down."""
        return self.matrix(mlp.gate), self.matrix(mlp.up), self.matrix(mlp.down)

    def choice(self, moe: MoESpec) -> MoE:
        """How experts are chosen."""
        found = self._choices.get(id(moe))
        if found is None:
            found = self._choices[id(moe)] = moe, self._bind_choice(moe)
        return found[1]

    def angles(self, angles: RopeAngles) -> Angles:
        """Cosines and sines, which all layers of a pass share: only the last ones are kept."""
        last = self._angles
        if last is None or last[0] is not angles:
            last = self._angles = angles, self._core.Angles(angles.cos, angles.sin, angles.interleaved)
        return last[1]

    def layer(self, layer: Layer) -> Any:
        """The class of the same name, with all weights of ``layer``."""
        found = self._layers.get(layer)
        if found is None:
            found = self._layers[layer] = self._bind(layer)
        return found

    def _bind(self, layer: Layer) -> Any:
        match layer:
            case LatentAttention():
                return self._bind_latent(layer)
            case GroupedAttention():
                return self._bind_grouped(layer)
            case GatedMLP():
                return self._core.GatedMLP(layer.norm, *self.mlp(layer.mlp), layer.eps)
            case Mixture():
                return self._bind_mixture(layer)
            case Head():
                return self._core.Head(layer.norm, self.matrix(layer.output), layer.eps)

    def _bind_latent(self, layer: LatentAttention) -> Any:
        q_a = None if layer.q_a is None else self.matrix(layer.q_a)
        queries = q_a, layer.q_a_norm, self.matrix(layer.q)
        latents = self.matrix(layer.kv_a), layer.kv_a_norm
        rest = map(self.matrix, (layer.k_b, layer.v_b, layer.output))
        return self._core.LatentAttention(layer.norm, *queries, *latents, *rest, layer.eps, layer.scale)

    def _bind_grouped(self, layer: GroupedAttention) -> Any:
        matrices = map(self.matrix, (layer.q, layer.k, layer.v, layer.output))
        biases = layer.q_bias, layer.k_bias, layer.v_bias
        return self._core.GroupedAttention(layer.norm, *matrices, *biases, layer.head_dim, layer.eps, layer.scale)

    def _bind_mixture(self, layer: Mixture) -> Any:
        router = self.matrix(layer.router), layer.bias, self.choice(layer.moe)
        shared = self.mlp(layer.shared) if layer.shared else (None, None, None)
        return self._core.Mixture(layer.norm, *router, *self.mlp(layer.routed), *shared, layer.eps)

    def _bind_choice(self, moe: MoESpec) -> MoE:
        bound: MoE = self._core.MoE(
            moe.n_routed_experts,
            moe.n_experts_per_token,
            moe.n_groups,
            moe.n_groups_per_token,
            moe.scoring is Scoring.SIGMOID,
            moe.normalize,
            moe.group_score is GroupScore.TOP2_SUM,
            moe.scaling,
        )
        return bound
