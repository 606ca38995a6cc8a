"""Native products against the reference: every format, every instruction set, odd shapes, 1 to 33 tokens."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_kernels import BLOCK_FORMATS, every_isa, exact_activations, kernels_of, needs_native, random_weight, rounded

from sprat.quant.formats import get_format
from sprat.runtime.kernels import MLP, ReferenceKernels
from sprat.runtime.kernels.native import NATIVE_FORMATS
from sprat.runtime.weights import Weight

pytestmark = needs_native
few = settings(deadline=None, max_examples=12)
every_format = pytest.mark.parametrize("format_name", sorted(NATIVE_FORMATS))
tokens, rows, blocks = st.integers(1, 33), st.integers(1, 40), st.integers(1, 19)


def row_length(format_name, n_blocks):
    return n_blocks * max(32, get_format(format_name).block_size)


def assert_close(found, expected, x, weight):
    """Within a few roundings of float32, relative to the largest product that such values could have.

    VNNI multiplies unsigned codes: 128 is added to signed ones, and taken off as a float32 sum that is 128 / 12 times
    as large as the product.
    """
    size = np.abs(x).sum(axis=1)[:, None] * np.abs(weight.dequantize()).max(axis=1)
    tolerance = 4e-6 if weight.format.name in {"MXFP4", "NVFP4"} else 1e-6
    np.testing.assert_array_less(np.abs(found - expected), tolerance * size + 1e-30)


@every_isa
@every_format
@given(n=tokens, n_rows=rows, n_blocks=blocks)
@few
def test_products_of_any_shape(isa, format_name, n, n_rows, n_blocks):
    rng = np.random.default_rng(n + 100 * n_rows)
    weight = random_weight(rng, (n_rows, row_length(format_name, n_blocks)), format_name)
    x = exact_activations(rng, n, weight.shape[1])
    assert_close(kernels_of(isa).linear(x, weight), ReferenceKernels().linear(x, weight), x, weight)


@every_isa
@every_format
@pytest.mark.parametrize("n_blocks", [1, 2, 3, 4, 8])
def test_products_of_short_rows(isa, format_name, n_blocks):
    """Several rows per group of 256 elements, or one; nothing after the last row may be read."""
    for n_rows, n in itertools.product((1, 3, 4, 8, 13, 64), (1, 2, 5)):
        rng = np.random.default_rng(n_rows)
        weight = random_weight(rng, (n_rows, row_length(format_name, n_blocks)), format_name)
        x = exact_activations(rng, n, weight.shape[1])
        assert_close(kernels_of(isa).linear(x, weight), ReferenceKernels().linear(x, weight), x, weight)


@every_isa
@pytest.mark.parametrize("n", [1, 7])
def test_biases_are_added(isa, n):
    rng = np.random.default_rng(0)
    weight, bias = random_weight(rng, (35, 64), "Q4_0"), rng.normal(size=35).astype(np.float32)
    x = exact_activations(rng, n, 64)
    np.testing.assert_allclose(
        kernels_of(isa).linear(x, weight, bias), kernels_of(isa).linear(x, weight) + bias, rtol=1e-6
    )


@every_isa
@every_format
@pytest.mark.parametrize("n", [1, 9])
@pytest.mark.parametrize("kind", ["zero", "tiny", "huge", "outlier", "constant", "alternating"])
def test_products_of_extreme_activations(isa, format_name, n, kind):
    rng = np.random.default_rng(5)
    weight = random_weight(rng, (17, row_length(format_name, 9)), format_name)
    x = exact_activations(rng, n, weight.shape[1])
    match kind:
        case "zero":
            x[:] = 0
        case "tiny":
            x *= 1e-20
        case "huge":
            x *= 1e20
        case "outlier":
            x[:, 7] = 1e4
        case "constant":  # the largest block sums
            x[:] = 3
        case "alternating":
            x[:] = np.where(np.arange(x.shape[1]) % 2, -5, 5)
    seen = rounded(x) if format_name in BLOCK_FORMATS else x
    assert_close(kernels_of(isa).linear(x, weight), ReferenceKernels().linear(seen, weight), seen, weight)


@every_isa
@pytest.mark.parametrize("format_name", BLOCK_FORMATS)
def test_products_of_any_codes(isa, format_name):
    """Every bit pattern of codes, not only those that a quantizer writes; scales are finite."""
    stored, rng = get_format(format_name), np.random.default_rng(6)
    packed = rng.integers(0, 256, (32, 5 * stored.block_bytes), np.uint8)
    scales = get_format(format_name).quantize(rng.normal(size=(32, 5 * stored.block_size)).astype(np.float32))
    halves = [slice(at, at + 2) for at in stored.scale_fields]
    fields = halves or [slice(0, stored.block_bytes - stored.block_size // 2)]  # scales of a byte, then nibbles
    blocks, of_scales = (values.reshape(-1, stored.block_bytes) for values in (packed, scales))
    for field in fields:
        blocks[:, field] = of_scales[:, field]
    weight = Weight("w", stored, (32, 5 * stored.block_size), packed)
    for n in (2, 8):
        x = exact_activations(rng, n, weight.shape[1])
        assert_close(kernels_of(isa).linear(x, weight), ReferenceKernels().linear(x, weight), x, weight)


@every_isa
@every_format
def test_rows_of_a_table(isa, format_name):
    table = random_weight(np.random.default_rng(1), (9, row_length(format_name, 5)), format_name)
    chosen = np.array([8, 0, 3, 3], np.int32)
    np.testing.assert_allclose(kernels_of(isa).embed(table, chosen), table.dequantize()[chosen], rtol=1e-6, atol=1e-9)


@every_isa
@given(n=tokens, width=st.integers(1, 90))
@few
def test_norms_of_any_width(isa, n, width):
    rng = np.random.default_rng(n + width)
    x, gain = rng.normal(size=(n, width)).astype(np.float32), rng.normal(size=width).astype(np.float32)
    found = kernels_of(isa).rms_norm(x, gain, 1e-6)
    np.testing.assert_allclose(found, ReferenceKernels().rms_norm(x, gain, 1e-6), rtol=1e-5, atol=1e-6)


@every_isa
@given(n=tokens, hidden=blocks, width=blocks)
@settings(deadline=None, max_examples=6)
def test_gated_mlps_of_any_shape(isa, n, hidden, width):
    rng = np.random.default_rng(n)
    shapes = ((32 * width, 32 * hidden), (32 * width, 32 * hidden), (32 * hidden, 32 * width))
    mlp = MLP(*(random_weight(rng, shape, "F16") for shape in shapes))
    x = rng.normal(size=(n, 32 * hidden)).astype(np.float32)
    np.testing.assert_allclose(kernels_of(isa).swiglu(x, mlp), ReferenceKernels().swiglu(x, mlp), atol=1e-5)


def test_a_weight_that_does_not_match_its_bytes_is_refused():
    weight = random_weight(np.random.default_rng(0), (4, 64), "Q4_0")
    wrong = Weight("w", weight.format, (5, 64), weight.packed)
    with pytest.raises(ValueError, match="packed bytes do not match"):
        kernels_of("plain").linear(np.zeros((1, 64), np.float32), wrong)
    with pytest.raises(ValueError, match="shapes of a product differ"):
        kernels_of("plain").linear(np.zeros((1, 32), np.float32), weight)
    with pytest.raises(ValueError, match="outside the table"):
        kernels_of("plain").embed(weight, np.array([4], np.int32))
