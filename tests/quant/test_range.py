"""What each format does at the end of its range: the weights up to ``largest`` stay finite and are not clipped."""

import gguf
import numpy as np
import pytest

from sprat.quant.formats import format_names, get_format
from sprat.quant.formats.groups import GROUP_SIZES, group_format

FORMATS = [get_format(name) for name in format_names()]
FORMATS += [
    group_format(bits, size, symmetric=sides) for bits in (4, 8) for size in GROUP_SIZES for sides in (True, False)
]
BLOCKS = {
    "both signs": lambda x: x,
    "positive": np.abs,
    "negative": lambda x: -np.abs(x),
    "two values": np.sign,
    "one value": np.ones_like,
    "one negative value": lambda x: -np.ones_like(x),
}


def largest_float32(format):
    rounded = np.float32(format.largest)
    return rounded if rounded <= format.largest else np.nextafter(rounded, np.float32(0))


def at_the_end_of_the_range(format, shape):
    unit = BLOCKS[shape](np.random.default_rng(0).uniform(-1, 1, (64, max(256, format.block_size))))
    return (unit / np.abs(unit).max(axis=-1, keepdims=True)).astype(np.float32) * largest_float32(format)


@pytest.mark.parametrize("shape", BLOCKS)
@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_weights_up_to_the_largest_are_stored_as_well_as_small_ones(format, shape):
    weights = at_the_end_of_the_range(format, shape)
    scale = np.float32(2**-20 if format.largest < 1e38 else 2**-60)
    error, error_of_small = (
        np.abs(format.dequantize(format.quantize(x)).astype(np.float64) - x).max() / np.abs(x).max()
        for x in (weights, weights * scale)
    )
    assert np.isfinite(format.dequantize(format.quantize(weights))).all()
    assert error <= 1.05 * error_of_small + 1e-3


@pytest.mark.parametrize("shape", BLOCKS)
@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_the_bound_from_the_scales_is_not_below_any_weight(format, shape):
    for factor in (1, 1e-6):
        packed = format.quantize(at_the_end_of_the_range(format, shape) * np.float32(factor))
        assert format.bound(packed) >= np.abs(format.dequantize(packed)).max()
    assert format.bound(packed[:0]) == 0


@pytest.mark.parametrize("name", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_0"])
def test_ggml_overflows_where_the_range_ends(name):
    """These formats end where ggml's own quantizers write infinity."""
    format, kind = get_format(name), gguf.GGMLQuantizationType[name]
    for factor, finite in ((1.0, True), (1.01, False)):
        weights = np.full((1, 32), min(format.largest * factor, float(np.finfo(np.float32).max)), np.float32)
        weights[0, 1:] = 0
        with np.errstate(over="ignore", invalid="ignore"):
            theirs = gguf.dequantize(gguf.quantize(weights, kind), kind)
        assert np.isfinite(theirs).all() == finite


@pytest.mark.parametrize("name", ["Q4_0", "Q8_0", "Q6_K"])
@pytest.mark.parametrize("scale", [np.inf, np.nan])
def test_the_bound_of_a_scale_that_is_not_finite_is_not_finite(name, scale):
    format = get_format(name)
    packed = format.quantize(np.ones((4, 256), np.float32))
    (offset,) = format.scale_fields
    packed.reshape(-1, format.block_bytes)[1, offset : offset + 2] = np.array([scale], np.float16).view(np.uint8)
    assert not np.isfinite(format.bound(packed))
