"""Native attention and rotation against the reference, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_kernels import every_isa, kernels_of, needs_native, random_weight

from sprat.runtime.arch.rope import RopeSpec, RopeTable
from sprat.runtime.cache import EntryLayout, KeysAndValues
from sprat.runtime.kernels import ReferenceKernels

pytestmark = needs_native
few = settings(deadline=None, max_examples=15)
# Entries that are not float32 are multiplied in int16, with 11 bits for the largest element of an entry. Typical errors
# are below 0.001; random entries have the sharpest softmax, and one value of thousands may be off by 0.01.
TOLERANCE = {"f32": 5e-5, "f16": 2e-2, "int8": 2e-2}
every_storage = pytest.mark.parametrize("storage", TOLERANCE)
tokens, past = st.integers(1, 33), st.integers(0, 300)


def stored(rows, storage, n_tokens, n_exact=0, group=32):
    """KV entries as a cache stores them, and of those the first ``n_tokens``."""
    layout = EntryLayout(storage, rows.shape[-1], n_exact, group)
    return layout.view(layout.store(rows.astype(np.float32))[..., :n_tokens, :])


@every_isa
@every_storage
@given(n=tokens, past=past, kv_heads=st.integers(1, 3), group=st.integers(1, 7), dim=st.integers(1, 70))
@few
def test_gqa_of_any_shape(isa, storage, n, past, kv_heads, group, dim):
    rng = np.random.default_rng(n + past)
    q = rng.normal(size=(n, kv_heads * group, dim)).astype(np.float32)
    # A view of a longer cache, as a model's entries are.
    rows = KeysAndValues(*(stored(rng.normal(size=(kv_heads, past + n + 3, dim)), storage, past + n) for _ in range(2)))
    found = kernels_of(isa).gqa_attention(q, rows, 0.3)
    np.testing.assert_allclose(found, ReferenceKernels().gqa_attention(q, rows, 0.3), atol=TOLERANCE[storage])


@every_isa
@every_storage
@given(past=past, kv_heads=st.integers(1, 3), group=st.integers(1, 9), dim=st.integers(1, 140))
@few
def test_gqa_of_one_token(isa, storage, past, kv_heads, group, dim):
    rng = np.random.default_rng(past)
    q = rng.normal(size=(1, kv_heads * group, dim)).astype(np.float32)
    rows = KeysAndValues(*(stored(rng.normal(size=(kv_heads, past + 4, dim)), storage, past + 1) for _ in range(2)))
    found = kernels_of(isa).gqa_attention(q, rows, 0.3)
    np.testing.assert_allclose(found, ReferenceKernels().gqa_attention(q, rows, 0.3), atol=TOLERANCE[storage])


@every_isa
@every_storage
@given(
    n=tokens,
    past=past,
    heads=st.integers(1, 5),
    rank=st.integers(1, 70),
    nope=st.integers(1, 40),
    v_dim=st.integers(1, 40),
)
@few
def test_expanded_and_absorbed_mla(isa, storage, n, past, heads, rank, nope, v_dim):
    rng, rope = np.random.default_rng(n + past), 6
    q = rng.normal(size=(n, heads, nope + rope)).astype(np.float32)
    rows = stored(rng.normal(size=(past + n, rank + rope)), storage, past + n, n_exact=rope)
    k_b = random_weight(rng, (heads, rank, nope), "F32")
    v_b = random_weight(rng, (heads, v_dim, rank), "F32")
    expected = ReferenceKernels().mla_absorbed(q, rows, k_b, v_b, 0.4)
    for form in (kernels_of(isa).mla_absorbed, kernels_of(isa).mla_expanded):
        np.testing.assert_allclose(form(q, rows, k_b, v_b, 0.4), expected, atol=TOLERANCE[storage])


@every_isa
@given(
    n=tokens,
    past=past,
    heads=st.integers(1, 20),
    n_groups=st.integers(1, 4),
    rope=st.integers(1, 40),
    scale=st.sampled_from([0.01, 0.2, 1.0]),
)
@few
def test_int8_latents_in_groups_of_128(isa, n, past, heads, n_groups, rope, scale):
    rng, rank = np.random.default_rng(n + past), 128 * n_groups
    q = rng.normal(size=(n, heads, 64 + 2 * rope)).astype(np.float32)
    x = rng.normal(size=(past + n + 1, rank + 2 * rope)) * np.exp(rng.normal(size=(past + n + 1, 1)))
    rows = stored(x, "int8", past + n, n_exact=2 * rope, group=128)
    k_b = random_weight(rng, (heads, rank, 64), "F32")
    v_b = random_weight(rng, (heads, 32, rank), "F32")
    expected = ReferenceKernels().mla_absorbed(q, rows, k_b, v_b, scale / (64 + 2 * rope) ** 0.5)
    found = kernels_of(isa).mla_absorbed(q, rows, k_b, v_b, scale / (64 + 2 * rope) ** 0.5)
    # Queries and weights in 8 bits. The largest errors found: 0.017, and 0.039 with the sharpest softmax here.
    assert np.linalg.norm(found - expected) < (0.03 if scale < 1 else 0.08) * np.linalg.norm(expected)


@every_isa
@pytest.mark.parametrize("format_name", ["Q4_0", "Q8_0", "F16"])
def test_latent_attention_with_packed_projections(isa, format_name):
    rng = np.random.default_rng(2)
    q = rng.normal(size=(5, 4, 64 + 16)).astype(np.float32)
    rows = rng.normal(size=(150, 128 + 16)).astype(np.float16)
    k_b, v_b = random_weight(rng, (4, 128, 64), format_name), random_weight(rng, (4, 64, 128), format_name)
    expected = ReferenceKernels().mla_expanded(q, rows, k_b, v_b, 0.1)
    np.testing.assert_allclose(kernels_of(isa).mla_expanded(q, rows, k_b, v_b, 0.1), expected, atol=TOLERANCE["f16"])
    # Absorbed MLA quantizes queries and sums to int8 where the projection is in blocks.
    np.testing.assert_allclose(kernels_of(isa).mla_absorbed(q, rows, k_b, v_b, 0.1), expected, atol=0.02)


@every_isa
def test_scores_far_apart_do_not_overflow(isa):
    rng = np.random.default_rng(3)
    q = rng.normal(size=(3, 2, 16)).astype(np.float32) * 100
    keys = rng.normal(size=(1, 200, 16)).astype(np.float32) * 10
    values = rng.normal(size=(1, 200, 16)).astype(np.float32)
    rows = KeysAndValues(keys, values)
    found = kernels_of(isa).gqa_attention(q, rows, 1.0)
    np.testing.assert_allclose(found, ReferenceKernels().gqa_attention(q, rows, 1.0), atol=1e-3)


@every_isa
def test_the_number_of_threads_changes_no_bit(isa):
    rng = np.random.default_rng(4)
    q = rng.normal(size=(1, 4, 32)).astype(np.float32)
    rows = KeysAndValues(*(rng.normal(size=(1, 900, 32)).astype(np.float16) for _ in range(2)))
    one = kernels_of(isa, 1).gqa_attention(q, rows, 0.2)
    for n_threads in (2, 3, 5):
        np.testing.assert_array_equal(kernels_of(isa, n_threads).gqa_attention(q, rows, 0.2), one)


@every_isa
@every_storage
def test_nan_and_infinity_propagate(isa, storage):
    rng = np.random.default_rng(5)
    q = rng.normal(size=(1, 2, 32)).astype(np.float32)
    keys, values = rng.normal(size=(2, 1, 20, 32)).astype(np.float32)
    for spoilt in (np.nan, np.inf):
        keys[0, 7] = spoilt
        rows = KeysAndValues(*(stored(x, storage, 20) for x in (keys, values)))
        assert np.isnan(kernels_of(isa).gqa_attention(q, rows, 0.2)).all()


@pytest.mark.parametrize("interleaved", [True, False])
def test_rotation_of_a_slice_of_wider_heads(interleaved):
    angles = RopeTable(RopeSpec(dim=8, theta=1e4, interleaved=interleaved)).angles(3, 5)
    x = np.random.default_rng(0).normal(size=(5, 3, 20)).astype(np.float32)
    expected = x.copy()
    kernels_of("plain").rope(x[..., 12:], angles)
    ReferenceKernels().rope(expected[..., 12:], angles)
    np.testing.assert_allclose(x, expected, atol=1e-6)
