"""Statistics of benchmarks against published tables and simulation."""

import numpy as np
import pytest

from sprat.devices.bench.statistics import percentiles, ratio_interval, spread, student_t_quantile


@pytest.mark.parametrize(
    ("probability", "freedom", "expected"),
    [  # Abramowitz and Stegun, table 26.10
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 4, 2.776),
        (0.975, 8, 2.306),
        (0.995, 5, 4.032),
        (0.95, 10, 1.812),
        (0.975, 30, 2.042),
        (0.975, 120, 1.980),
        (0.5, 3, 0.0),
    ],
)
def test_t_quantiles_agree_with_the_table(probability, freedom, expected):
    assert student_t_quantile(probability, freedom) == pytest.approx(expected, abs=6e-4)


def test_welchs_interval_agrees_with_the_formula():
    ratio = ratio_interval([np.exp(1.0), np.exp(1.2)], [np.exp(0.1), np.exp(0.3)])
    error = (2 * 0.02 / 2) ** 0.5  # variance of (1.0, 1.2) is 0.02; degrees of freedom come out as 2
    assert ratio.value == pytest.approx(np.exp(0.9))
    assert ratio.high / ratio.value == pytest.approx(np.exp(4.302653 * error))
    assert ratio.low * ratio.high == pytest.approx(ratio.value**2)
    assert ratio.differs


def test_the_interval_has_its_nominal_coverage():
    rng = np.random.default_rng(1)
    faster, slower = rng.lognormal(0.3, 0.05, (600, 5)), rng.lognormal(0.1, 0.02, (600, 7))
    ratios = [ratio_interval(a, b) for a, b in zip(faster.tolist(), slower.tolist(), strict=True)]
    covered = sum(ratio.low <= np.exp(0.2) <= ratio.high for ratio in ratios) / 600
    assert 0.92 < covered < 0.98


def test_samples_without_variance_have_an_interval_of_one_point():
    ratio = ratio_interval([2.0, 2.0], [1.0, 1.0])
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((2.0, 2.0, 2.0))
    assert ratio.differs


def test_percentiles_are_by_nearest_rank():
    found = percentiles([float(number) for number in range(1, 201)])
    assert (found.n, found.p50, found.p99, found.worst) == (200, 100.5, 198.0, 200.0)
    assert percentiles([3.0]).p99 == 3.0
    assert percentiles([]) is None


def test_spread_is_standard_deviation_over_mean():
    assert spread([9.0, 10.0, 11.0]) == pytest.approx(0.1)
    assert spread([5.0]) == 0.0
