"""RoPE angles against values computed by hand; the golden logits test them in whole models."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sprat.runtime.arch.rope import FrequencyFactors, RopeSpec, RopeTable, YarnScaling, llama3_factors, yarn_magnitude


def table(dim=8, theta=1e4, scaling=None):
    return RopeTable(RopeSpec(dim=dim, theta=theta, interleaved=True, scaling=scaling))


def test_angles_are_position_times_theta_to_the_power_of_the_pair():
    angles = table().angles(5, 2)
    np.testing.assert_allclose(angles.cos[1], np.cos([6, 0.6, 0.06, 0.006]), rtol=1e-6)
    np.testing.assert_allclose(angles.sin[1], np.sin([6, 0.6, 0.06, 0.006]), rtol=1e-6)


def test_angles_do_not_depend_on_earlier_requests():
    grown, fresh = table(), table()
    for start in (0, 3, 100, 1000):
        grown.angles(start, 7)
    np.testing.assert_array_equal(grown.angles(5000, 3).cos, fresh.angles(5000, 3).cos)


def test_frequency_factors_divide():
    angles = table(scaling=FrequencyFactors((1.0, 2.0, 4.0, 8.0))).angles(8, 1)
    np.testing.assert_allclose(angles.sin[0], np.sin([8, 0.4, 0.02, 0.001]), rtol=1e-6)


def test_llama3_scales_long_wavelengths_and_interpolates_to_short_ones():
    """With theta 1e4 over 8 elements, the wavelengths are 2 pi times 1, 10, 100, 1000."""
    original = 2 * math.pi * 25  # so the pairs turn 25, 2.5, 0.25 and 0.025 times
    factors = llama3_factors(
        8, 1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=original
    ).factors
    assert factors == pytest.approx([1.0, 1 / (0.5 / 8 + 0.5), 8.0, 8.0], rel=1e-6)


def test_llama3_factors_are_exact_in_float32():
    factors = llama3_factors(
        128, 5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
    ).factors
    assert np.float32(factors).tolist() == list(factors)


def test_yarn_scales_slow_pairs_only():
    """V2-Lite's ramp runs from pair 10 to pair 23 of 32, as the formula gives for 4096 positions, 32 and 1 turns."""
    yarn = YarnScaling(factor=40.0, original_max_position_embeddings=4096, mscale=0.707, mscale_all_dim=0.707)
    stretched = table(64, scaling=yarn).angles(1, 1)
    plain = table(64).angles(1, 1)
    ratio = np.arctan2(plain.sin, plain.cos) / np.arctan2(stretched.sin, stretched.cos)
    np.testing.assert_allclose(ratio[0, :11], 1.0, rtol=1e-5)
    np.testing.assert_allclose(ratio[0, 23:], 40.0, rtol=1e-5)
    assert (np.diff(ratio[0, 10:24]) > 0).all()


@pytest.mark.parametrize(
    ("mscale", "all_dim", "magnitude"),
    [
        (0.707, 0.707, 1.0),
        (1.0, 0.0, 1.3688879454113936),  # 0.1 ln 40 + 1
        (1.0, 0.5, 1.3688879454113936 / 1.1844439727056968),
    ],
)
def test_yarn_magnitude_of_cos_and_sin(mscale, all_dim, magnitude):
    yarn = YarnScaling(factor=40.0, original_max_position_embeddings=4096, mscale=mscale, mscale_all_dim=all_dim)
    angles = table(64, scaling=yarn).angles(7, 1)
    np.testing.assert_allclose(np.hypot(angles.cos, angles.sin), magnitude, rtol=1e-6)


def test_yarn_magnitude_is_1_without_scaling():
    assert yarn_magnitude(1.0, 0.707) == 1.0
    assert yarn_magnitude(0.5, 0.707) == 1.0
