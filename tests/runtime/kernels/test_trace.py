"""Traced kernels: the same logits as without tracing, calls attributed to layers, exact bytes and operations."""

import numpy as np
import pytest
from native_kernels import kernels_of, needs_native
from tiny_checkpoint import write_checkpoint

from sprat.export.source.checkpoint import Checkpoint
from sprat.runtime.arch.attention import LatentAttentionSpec
from sprat.runtime.arch.tensors import expected_tensors
from sprat.runtime.kernels import Kernels, ReferenceKernels
from sprat.runtime.kernels.trace import NO_LAYER, TracedKernels, traced
from sprat.runtime.models import Model

TOKENS = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module", params=["deepseek2", "llama", "qwen2"])
def checkpoint(request, tmp_path_factory):
    return Checkpoint.open(write_checkpoint(tmp_path_factory.mktemp("trace") / request.param, request.param))


def run(checkpoint, kernels):
    """Logits after a prompt and after one more token."""
    model = Model(checkpoint.spec, checkpoint, kernels)
    cache = model.new_cache(16)
    return model.forward(TOKENS, cache), model.forward([2], cache)


def test_logits_are_the_same_and_every_layer_has_calls(checkpoint):
    kernels = TracedKernels(ReferenceKernels(0))
    for found, expected in zip(run(checkpoint, traced(kernels)), run(checkpoint, ReferenceKernels(0)), strict=True):
        np.testing.assert_array_equal(found, expected)
    spec = checkpoint.spec
    assert {call.layer for call in kernels.calls} == {NO_LAYER, *range(spec.n_layers)}
    norms = [call.layer for call in kernels.calls if call.kernel == "rms_norm"]
    per_pass = [
        layer
        for layer in range(spec.n_layers)
        for _ in range(3 if isinstance(spec.attention, LatentAttentionSpec) else 2)
    ] + [NO_LAYER]
    assert norms == per_pass * 2


@needs_native
def test_the_steps_of_native_kernels_have_the_bits_of_fused_sublayers(checkpoint):
    kernels = TracedKernels(kernels_of(""))
    for found, expected in zip(run(checkpoint, traced(kernels)), run(checkpoint, kernels_of("")), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert {call.layer for call in kernels.calls} == {NO_LAYER, *range(checkpoint.spec.n_layers)}


def test_a_token_reads_every_matrix_once(checkpoint):
    kernels = TracedKernels(ReferenceKernels(0))
    model = Model(checkpoint.spec, checkpoint, traced(kernels))
    model.forward([7], model.new_cache(4))
    spec = checkpoint.spec
    share = spec.moe.n_experts_per_token / spec.moe.n_routed_experts if spec.moe else 1.0
    weights = {name: checkpoint.weight(name) for name, shape in expected_tensors(spec).items() if len(shape) > 1}
    embedding = weights["token_embd.weight"]
    expected = sum(w.nbytes * (share if "_exps." in name else 1.0) for name, w in weights.items())
    expected -= 0 if spec.tied_embeddings else embedding.nbytes
    expected += embedding.nbytes / embedding.shape[0]
    cached = sum(call.n_bytes for call in kernels.calls if call.kernel == "gqa_attention")
    if isinstance(spec.attention, LatentAttentionSpec):  # one latent per layer, float32 in this cache
        cached = spec.n_layers * 4 * spec.cache_elements_per_token // spec.n_layers
    assert sum(call.n_bytes for call in kernels.calls) == expected + cached


def test_operations_of_a_prompt_are_two_per_weight_and_token(checkpoint):
    kernels = TracedKernels(ReferenceKernels(0))
    run(checkpoint, traced(kernels))
    first = next(call for call in kernels.calls if call.kernel == "linear" and call.what == "attn_output")
    assert first.n_ops == 2 * len(TOKENS) * np.prod(checkpoint.weight("blk.0.attn_output.weight").shape)
    assert all(call.seconds >= 0 for call in kernels.calls)


def test_other_attributes_are_those_of_the_wrapped_kernels():
    class Named(ReferenceKernels):
        isa = "plain"

    kernels = TracedKernels(Named(0))
    assert kernels.isa == "plain"
    assert kernels.linear is kernels.linear
    with pytest.raises(AttributeError):
        kernels.no_such_kernel  # noqa: B018
    assert hasattr(Kernels, "linear")
