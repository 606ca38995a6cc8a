"""Reference attention against loops over heads and queries in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.quant.formats import get_format
from sprat.runtime.cache import KeysAndValues
from sprat.runtime.kernels import ReferenceKernels, reference
from sprat.runtime.weights import Weight


def packed(array, format_name="F32"):
    stored = get_format(format_name)
    return Weight("w", stored, array.shape, stored.quantize(array.astype(np.float32)))


def attend(query, keys, values, scale):
    """One head and one query over the KV entries that it attends to."""
    scores = keys @ query * scale
    weights = np.exp(scores - scores.max())
    return weights / weights.sum() @ values


def gqa(q, keys, values, scale):
    n, n_heads, _ = q.shape
    n_rows, group = keys.shape[1], n_heads // len(keys)
    out = np.empty((n, n_heads, values.shape[-1]))
    for i, h in np.ndindex(n, n_heads):
        seen = n_rows - n + i + 1
        out[i, h] = attend(q[i, h], keys[h // group, :seen], values[h // group, :seen], scale)
    return out


def latent_attention(q, rows, k_b, v_b, scale):
    """Keys and values per head, by the definition."""
    rank, nope = k_b.shape[1:]
    keys = np.stack([np.concatenate([rows[:, :rank] @ k, rows[:, rank:]], axis=1) for k in k_b])
    values = np.stack([rows[:, :rank] @ v.T for v in v_b])
    assert q.shape[-1] == nope + rows.shape[1] - rank
    return gqa(q, keys, values, scale)


sizes = st.integers(1, 5)


@given(n=st.integers(1, 9), past=st.integers(0, 9), kv_heads=sizes, group=sizes, dim=sizes, value_dim=sizes)
def test_gqa_of_any_shape(n, past, kv_heads, group, dim, value_dim):
    rng = np.random.default_rng(n + past)
    q, keys = rng.normal(size=(n, kv_heads * group, dim)), rng.normal(size=(kv_heads, past + n, dim))
    values = rng.normal(size=(kv_heads, past + n, value_dim))
    rows = KeysAndValues(keys.astype(np.float32), values.astype(np.float32))
    out = ReferenceKernels().gqa_attention(q.astype(np.float32), rows, 0.3)
    np.testing.assert_allclose(out, gqa(q, keys, values, 0.3), atol=1e-5)


@given(n=st.integers(1, 9), past=st.integers(0, 9), heads=sizes, rank=sizes, nope=sizes, rope=sizes, v_dim=sizes)
def test_expanded_and_absorbed_mla_are_the_definition(n, past, heads, rank, nope, rope, v_dim):
    rng = np.random.default_rng(n + past)
    q, rows = rng.normal(size=(n, heads, nope + rope)), rng.normal(size=(past + n, rank + rope))
    k_b, v_b = rng.normal(size=(heads, rank, nope)), rng.normal(size=(heads, v_dim, rank))
    expected = latent_attention(q, rows, k_b, v_b, 0.4)
    for form in (ReferenceKernels().mla_expanded, ReferenceKernels().mla_absorbed):
        out = form(q.astype(np.float32), rows.astype(np.float32), packed(k_b), packed(v_b), 0.4)
        assert out.shape == (n, heads, v_dim)
        np.testing.assert_allclose(out, expected, atol=1e-4)


def test_attention_of_long_prompts_runs_in_panels_of_queries(monkeypatch):
    rng = np.random.default_rng(0)
    q, keys = rng.normal(size=(50, 4, 8)).astype(np.float32), rng.normal(size=(2, 70, 8)).astype(np.float32)
    whole = ReferenceKernels().gqa_attention(q, KeysAndValues(keys, keys), 0.3)
    monkeypatch.setattr(reference, "PANEL_BYTES", 4 * 4 * 70 * 7)  # seven queries
    np.testing.assert_allclose(ReferenceKernels().gqa_attention(q, KeysAndValues(keys, keys), 0.3), whole, atol=1e-6)


def test_float16_entries_are_computed_in_float32():
    rng = np.random.default_rng(0)
    q = rng.normal(size=(3, 2, 8)).astype(np.float32)
    half = rng.normal(size=(2, 5, 8)).astype(np.float16)
    wide = half.astype(np.float32)
    kernels = ReferenceKernels()
    np.testing.assert_array_equal(
        kernels.gqa_attention(q, KeysAndValues(half, half), 1.0),
        kernels.gqa_attention(q, KeysAndValues(wide, wide), 1.0),
    )


@pytest.mark.parametrize("scale", [1e4, 1e-30])
def test_extreme_scores_do_not_overflow(scale):
    q, rows = np.ones((2, 1, 4), np.float32), np.ones((1, 6, 4), np.float32)
    np.testing.assert_allclose(ReferenceKernels().gqa_attention(q, KeysAndValues(rows, rows), scale), 1.0, rtol=1e-6)


def test_packed_projections_are_dequantized():
    rng = np.random.default_rng(0)
    k_b, v_b = packed(rng.normal(size=(2, 32, 32)), "Q8_0"), packed(rng.normal(size=(2, 32, 32)), "Q8_0")
    q, rows = rng.normal(size=(3, 2, 40)).astype(np.float32), rng.normal(size=(7, 40)).astype(np.float32)
    expected = latent_attention(q, rows, k_b.dequantize(), v_b.dequantize(), 0.2)
    np.testing.assert_allclose(
        ReferenceKernels(dense_bytes=0).mla_absorbed(q, rows, k_b, v_b, 0.2), expected, atol=1e-4
    )
