"""How many experts stay, and which."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

from sprat.errors import InputError
from sprat.export.pruning.selection import best_experts, checked_share, provisional
from sprat.export.source.checkpoint import Checkpoint
from sprat.runtime.arch.moe import GroupScore, Scoring


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return Checkpoint.open(write_checkpoint(tmp_path_factory.mktemp("source") / "tiny"))


@pytest.fixture
def moe(checkpoint):
    return checkpoint.spec.moe


@pytest.fixture
def grouped(checkpoint):
    """V3's routing: 8 experts in 2 groups, of which one is chosen; each needs two for its score."""
    moe = replace(
        checkpoint.spec.moe,
        n_groups=2,
        n_groups_per_token=1,
        scoring=Scoring.SIGMOID,
        group_score=GroupScore.TOP2_SUM,
    )
    return replace(checkpoint, spec=replace(checkpoint.spec, moe=moe))


def test_the_largest_contributions_stay_in_the_order_of_the_source(moe):
    values = np.array([5.0, 0, 3, 1, 9, 0, 2, 4])
    assert best_experts(moe, 0.25, {1: values, 2: values[::-1]}) == {1: (0, 2, 3, 4, 6, 7), 2: (0, 1, 3, 4, 5, 7)}


def test_of_equal_experts_the_first_stay(moe):
    assert best_experts(moe, 0.5, {3: np.zeros(8)}) == {3: (0, 1, 2, 3)}


def test_every_group_loses_as_many(grouped):
    values = np.array([1.0, 2, 3, 4, 90, 80, 70, 60])
    assert best_experts(grouped.spec.moe, 0.25, {1: values}) == {1: (1, 2, 3, 4, 5, 6)}


def test_a_dense_model_is_refused(tmp_path):
    dense = Checkpoint.open(write_checkpoint(tmp_path / "dense", "qwen2"))
    with pytest.raises(InputError, match=r"--prune-experts 0\.25: .*dense has no routed experts; omit the option"):
        checked_share(dense, 0.25)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 25.0, float("nan")])
def test_a_share_is_between_0_and_1(checkpoint, share):
    with pytest.raises(InputError, match=r"expected a share between 0 and 1, such as 0\.25"):
        checked_share(checkpoint, share)


def test_the_routing_keeps_enough_experts(checkpoint, grouped):
    assert checked_share(checkpoint, 0.625) is checkpoint.spec.moe
    with pytest.raises(InputError, match=r"leaves 2 of 8 experts per layer, .* needs 3; remove at most 0\.625"):
        checked_share(checkpoint, 0.75)
    with pytest.raises(InputError, match=r"leaves 4 of 8 experts per layer, .* needs 6; remove at most 0\.25"):
        checked_share(grouped, 0.5)


def test_a_share_that_removes_nothing_is_refused(checkpoint, grouped):
    with pytest.raises(InputError, match=r"removes none of 8 experts; give at least 0\.125"):
        checked_share(checkpoint, 0.05)
    with pytest.raises(InputError, match=r"removes none of 4 experts of a group; give at least 0\.25"):
        checked_share(grouped, 0.1)


def test_sizes_are_known_before_a_weight_is_read(checkpoint):
    pruned = provisional(checkpoint, 0.25)
    assert pruned.spec.moe.n_routed_experts == 6
    assert pruned.tensors["blk.1.ffn_gate_inp.weight"].shape == (6, 64)
    assert pruned.tensors["blk.3.ffn_down_exps.weight"].shape == (6, 64, 32)
    assert pruned.tensors["blk.0.ffn_down.weight"].shape == (64, 96)
    assert pruned.whole is checkpoint
