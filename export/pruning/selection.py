"""Selection of experts: those that contribute most in each layer, as many of every group of experts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sprat.arrays import F64Array
from sprat.errors import InputError
from sprat.export.source.checkpoint import Checkpoint
from sprat.runtime.arch.moe import GroupScore, MoESpec

__all__ = ["best_experts", "checked_share", "provisional"]


def provisional(checkpoint: Checkpoint, share: float) -> Checkpoint:
    """The checkpoint with ``share`` of each layer's experts removed, before it is known which contribute least.

    Sizes and formats do not depend on which stay.

    Raises:
        InputError: as :func:`checked_share`.
    """
    moe = checked_share(checkpoint, share)
    layers = range(moe.n_dense_layers, checkpoint.spec.n_layers)
    equal = np.zeros(moe.n_routed_experts)
    return checkpoint.with_experts(best_experts(moe, share, dict.fromkeys(layers, equal)))


def checked_share(checkpoint: Checkpoint, share: float) -> MoESpec:
    """The MoE that loses ``share`` of its experts.

    Raises:
        InputError: the model has no experts, the share removes none, or it leaves too few for the routing.
    """
    moe = checkpoint.spec.moe
    if moe is None or moe.n_dense_layers >= checkpoint.spec.n_layers:
        raise InputError(
            f"--prune-experts {share:g}: {checkpoint.path} has no routed experts; omit the option, or choose a smaller "
            "quantization"
        )
    if not 0 < share < 1:
        raise InputError(f"--prune-experts {share:g}: expected a share between 0 and 1, such as 0.25")
    group = moe.n_routed_experts // moe.n_groups
    least = _least_of_group(moe)
    kept, most = _kept_of_group(moe, share), 1 - least / group
    if kept < least:
        raise InputError(
            f"--prune-experts {share:g}: leaves {kept * moe.n_groups} of {moe.n_routed_experts} experts per layer, and "
            f"the routing of this model needs {least * moe.n_groups}; remove at most {most:.3g}"
        )
    if kept == group:
        raise InputError(
            f"--prune-experts {share:g}: removes none of {group} experts{' of a group' if moe.n_groups > 1 else ''}; "
            f"give at least {1 / group:.3g}"
        )
    return moe


def best_experts(moe: MoESpec, share: float, contributions: Mapping[int, F64Array]) -> dict[int, tuple[int, ...]]:
    """MoE layer -> ids of the experts that stay, in ascending order; of equal ones the first.

    Args:
        moe: the dimensions before pruning.
        share: of the experts to remove.
        contributions: MoE layer -> contribution of each expert, ``(n_routed_experts,)``.
    """
    n_kept, group = _kept_of_group(moe, share), moe.n_routed_experts // moe.n_groups
    found = {}
    for layer, values in contributions.items():
        order = np.argsort(-values.reshape(moe.n_groups, group), axis=1, kind="stable")[:, :n_kept]
        ids = np.sort(order, axis=1) + group * np.arange(moe.n_groups)[:, None]
        found[layer] = tuple(ids.ravel().tolist())
    return found


def _kept_of_group(moe: MoESpec, share: float) -> int:
    group = moe.n_routed_experts // moe.n_groups
    return group - round(share * group)


def _least_of_group(moe: MoESpec) -> int:
    """The fewest experts of a group with which the routing works."""
    of_routing = -(-moe.n_experts_per_token // moe.n_groups_per_token)
    return max(of_routing, 2 if moe.group_score is GroupScore.TOP2_SUM else 1)
