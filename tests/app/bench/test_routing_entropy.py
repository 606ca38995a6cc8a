"""Routing entropy: 1 for a uniform distribution over experts, 0 if all tokens are routed to one."""

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

from sprat.app.bench.routing import RoutingEntropy
from sprat.export.source.checkpoint import Checkpoint
from sprat.runtime.backends.reference import ReferenceBackend


def experts(*rows):
    return np.array(rows, np.int32)


@pytest.mark.parametrize(
    ("selected", "share"),
    [
        (experts([0, 1], [2, 3]), 1.0),
        (experts([1], [1], [1]), 0.0),
        (experts([0, 1], [1, 0]), 0.5),  # two of four: half of the bits
    ],
)
def test_entropy_is_a_share_of_the_uniform_one(selected, share):
    routing = RoutingEntropy()
    assert routing.share(4) is None
    routing(3, selected)
    assert routing.share(4) == pytest.approx(share)


def test_layers_are_averaged():
    routing = RoutingEntropy()
    routing(1, experts([0, 1, 2, 3]))
    routing(2, experts([0, 0, 0, 0]))
    assert routing.share(4) == pytest.approx(0.5)


def test_the_routing_of_a_stream_is_observed(tmp_path):
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path / "moe", "deepseek2"))
    backend, routing = ReferenceBackend(checkpoint.spec, checkpoint, dense_bytes=0), RoutingEntropy()
    backend.new_stream(40, routing).forward(list(range(32)))
    assert 0.5 < routing.share(checkpoint.spec.moe.n_routed_experts) <= 1.0
