"""Every grid: its fields give the format's weights, and put together again they give the block."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.quant.formats import format_names, get_format
from sprat.quant.round import grid_of

GRIDS = [name for name in format_names() if grid_of(get_format(name))]


def blocks(name, n=6, seed=0):
    """Packed blocks of heavy-tailed weights, one of them all zeros."""
    format = get_format(name)
    weights = np.random.default_rng(seed).standard_t(4, (n, format.block_size)).astype(np.float32)
    weights[1] = 0
    return format.quantize(weights).reshape(n, format.block_bytes)


def values(grid, packed, codes):
    scale, offset = (np.repeat(field, grid.sub_block, axis=1) for field in grid.scales(packed))
    return scale * grid.levels[codes] - offset


def codes_of(grid, packed, weights):
    scale, offset = (np.repeat(field, grid.sub_block, axis=1) for field in grid.scales(packed))
    return grid.codes((weights + offset) / np.where(scale == 0, 1, scale))


def test_formats_of_codes_have_a_grid():
    assert {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q4_K", "Q5_K", "Q6_K"} <= set(GRIDS)
    assert not {"F32", "F16", "BF16"} & set(GRIDS)


@pytest.mark.parametrize("name", GRIDS)
def test_scales_and_codes_give_the_weights(name):
    format, grid, packed = get_format(name), grid_of(get_format(name)), blocks(name)
    weights = format.dequantize(packed)
    assert np.array_equal(values(grid, packed, codes_of(grid, packed, weights)), weights)


@pytest.mark.parametrize("name", GRIDS)
@given(seed=st.integers(0, 2**20))
def test_other_codes_are_the_values_that_llamacpp_reads(name, seed):
    gguf = pytest.importorskip("gguf")
    format, grid, packed = get_format(name), grid_of(get_format(name)), blocks(name)
    codes = np.random.default_rng(seed).integers(0, len(grid.levels), (len(packed), format.block_size), np.uint8)
    changed = grid.with_codes(packed, codes)
    assert np.array_equal(format.dequantize(changed), values(grid, changed, codes))
    if name != "Q2_0":  # younger than the package gguf
        read = gguf.dequantize(changed, gguf.GGMLQuantizationType(format.ggml_type))
        assert np.array_equal(read, format.dequantize(changed))


@pytest.mark.parametrize("name", GRIDS)
def test_a_block_keeps_its_own_scales(name):
    grid, packed = grid_of(get_format(name)), blocks(name)
    again = grid.with_scales(packed, *grid.scales(packed))
    for now, before in zip(grid.scales(again), grid.scales(packed), strict=True):
        assert np.array_equal(now, before)


@pytest.mark.parametrize("name", GRIDS)
def test_other_scales_are_the_nearest(name):
    grid, packed = grid_of(get_format(name)), blocks(name)
    scale, offset = grid.scales(packed)
    changed = grid.with_scales(packed, scale * np.float32(0.9), offset)
    new_scale, new_offset = grid.scales(changed)
    assert np.array_equal(new_offset, offset)
    largest = np.abs(scale).max()
    assert np.all(np.abs(new_scale - 0.9 * scale) <= 0.5 * largest)


@pytest.mark.parametrize("name", GRIDS)
def test_nearest_is_the_nearest_level(name):
    grid = grid_of(get_format(name))
    scaled = np.linspace(grid.levels[0] - 2, grid.levels[-1] + 2, 997, dtype=np.float32)
    best = np.abs(scaled[:, None] - grid.levels).min(axis=1)
    assert np.array_equal(np.abs(scaled - grid.nearest(scaled)), best)
    assert np.array_equal(grid.levels[grid.codes(scaled)], grid.nearest(scaled))
