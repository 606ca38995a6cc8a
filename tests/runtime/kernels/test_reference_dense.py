"""Reference kernels of dense layers against float64 arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.quant.formats import format_names, get_format
from sprat.runtime.arch.rope import RopeAngles
from sprat.runtime.kernels import MLP, ReferenceKernels, reference
from sprat.runtime.kernels.dense import DenseCache
from sprat.runtime.weights import Weight


def weight(array, format_name="F32", name="w"):
    array = np.asarray(array, np.float32)
    stored = get_format(format_name)
    return Weight(name, stored, array.shape, stored.quantize(array))


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.mark.parametrize("format_name", format_names())
@pytest.mark.parametrize("dense_bytes", [0, 1 << 20])
@pytest.mark.parametrize("n", [1, 5])
def test_linear_multiplies_the_dequantized_weights(format_name, dense_bytes, n, rng):
    packed, x = weight(rng.normal(size=(7, 512)), format_name), rng.normal(size=(n, 512)).astype(np.float32)
    exact = x.astype(np.float64) @ packed.dequantize().astype(np.float64).T
    np.testing.assert_allclose(ReferenceKernels(dense_bytes).linear(x, packed), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("format_name", format_names())
def test_embed_dequantizes_the_rows_of_the_tokens(format_name, rng):
    table = weight(rng.normal(size=(9, 256)), format_name)
    rows = ReferenceKernels().embed(table, np.array([8, 0, 8], np.int32))
    np.testing.assert_array_equal(rows, table.dequantize()[[8, 0, 8]])


def test_linear_adds_the_bias():
    out = ReferenceKernels().linear(
        np.ones((2, 3), np.float32), weight(np.ones((4, 3))), np.arange(4, dtype=np.float32)
    )
    np.testing.assert_array_equal(out, [[3, 4, 5, 6]] * 2)


def test_a_matrix_over_the_memory_limit_is_multiplied_in_panels(monkeypatch, rng):
    monkeypatch.setattr(reference, "PANEL_BYTES", 4 * 64 * 3)  # three rows
    packed, x = weight(rng.normal(size=(10, 64)), "Q8_0"), rng.normal(size=(4, 64)).astype(np.float32)
    np.testing.assert_allclose(
        ReferenceKernels(dense_bytes=0).linear(x, packed), x @ packed.dequantize().T, rtol=1e-5, atol=1e-5
    )


def test_rms_norm(rng):
    x, gain = rng.normal(size=(3, 40)).astype(np.float32) * 100, rng.normal(size=40).astype(np.float32)
    exact = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-6) * gain
    np.testing.assert_allclose(ReferenceKernels().rms_norm(x, gain, 1e-6), exact, rtol=1e-5)


def test_rms_norm_of_zeros_is_zeros():
    out = ReferenceKernels().rms_norm(np.zeros((1, 8), np.float32), np.ones(8, np.float32), 1e-6)
    np.testing.assert_array_equal(out, 0)


@pytest.mark.parametrize("interleaved", [True, False])
def test_rope_rotates_pairs_like_complex_numbers(interleaved, rng):
    x, turns = rng.normal(size=(5, 3, 8)), rng.normal(size=(5, 4))
    angles = RopeAngles(np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32), interleaved)
    pairs = x[..., 0::2] + 1j * x[..., 1::2] if interleaved else x[..., :4] + 1j * x[..., 4:]
    turned = pairs * np.exp(1j * turns)[:, None]
    expected = np.stack([turned.real, turned.imag], -1 if interleaved else -2).reshape(5, 3, 8)
    heads = np.zeros((5, 3, 12), np.float32)
    heads[..., 4:] = x
    ReferenceKernels().rope(heads[..., 4:], angles)
    np.testing.assert_allclose(heads[..., 4:], expected, atol=1e-6)
    np.testing.assert_array_equal(heads[..., :4], 0)


def test_swiglu(rng):
    gate, up, down = rng.normal(size=(3, 6, 6))
    x = rng.normal(size=(4, 6)).astype(np.float32)
    inner = x @ gate.T
    exact = (inner / (1 + np.exp(-inner)) * (x @ up.T)) @ down.T
    out = ReferenceKernels().swiglu(x, MLP(weight(gate), weight(up), weight(down)))
    np.testing.assert_allclose(out, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("extreme", [-1e30, -100.0, 0.0, 100.0, 1e30])
def test_the_gate_is_finite_and_without_warnings_for_any_input(extreme):
    one = weight([[1.0]])
    out = ReferenceKernels().swiglu(np.full((1, 1), extreme, np.float32), MLP(one, weight([[1e-30]]), one))
    assert np.isfinite(out).all()


@given(n=st.integers(1, 33), rows=st.integers(1, 17), blocks=st.integers(1, 5), keep=st.booleans())
def test_linear_of_any_shape(n, rows, blocks, keep):
    rng = np.random.default_rng(n * rows)
    packed, x = (
        weight(rng.normal(size=(rows, 32 * blocks)), "Q4_0"),
        rng.normal(size=(n, 32 * blocks)).astype(np.float32),
    )
    out = ReferenceKernels(dense_bytes=1 << 20 if keep else 0).linear(x, packed)
    assert out.shape == (n, rows)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, x @ packed.dequantize().T, rtol=1e-4, atol=1e-4)


def test_the_first_dense_copies_within_the_limit_are_kept(rng):
    first, second, third = (weight(rng.normal(size=(4, 32)), "Q8_0") for _ in range(3))
    cache = DenseCache(limit_bytes=2 * 4 * 32 * 4)
    kept = cache.find(first)
    assert cache.find(second) is not None
    assert cache.find(third) is None
    assert cache.find(first) is kept
    assert cache.nbytes == 2 * 4 * 32 * 4


def test_float32_weights_are_not_copied():
    packed = weight(np.ones((4, 32)))
    cache = DenseCache(limit_bytes=0)
    assert np.shares_memory(cache.find(packed), packed.packed)
    assert cache.nbytes == 0


def test_experts_are_kept_individually(rng):
    stacked = weight(rng.normal(size=(3, 4, 32)), "Q8_0")
    cache = DenseCache(limit_bytes=4 * 32 * 4)
    np.testing.assert_array_equal(cache.find(stacked, 2), stacked.dequantize()[2])
    assert cache.find(stacked, 1) is None
