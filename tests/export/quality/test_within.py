"""From a divergence to the smallest file."""

from dataclasses import dataclass

import pytest

from sprat.errors import InputError
from sprat.export.quality.budget import Tensors, formats_bytes
from sprat.export.quality.within import smallest_expected, smallest_measured
from sprat.quant.formats import get_format

NAMES = ["Q2_K", "Q3_K", "Q4_K", "Q6_K", "Q8_0"]
TENSORS = Tensors(
    shapes := {f"blk.{layer}.attn_q.weight": (256, 256) for layer in range(60)},
    dict.fromkeys(shapes, tuple(map(get_format, NAMES))),
    {},
)
LEAST = 60 * 4.0**-8.5


def cost(_name, format):
    return 4.0**-format.bits_per_weight


@dataclass
class Found:
    """What a comparison finds, as far as it is read."""

    score: "Found | None" = None
    mean: float = 0.0


class Files:
    """Measures ``worse`` times the expected divergence; counts its calls."""

    def __init__(self, worse):
        self.worse, self.klds, self.sizes = worse, [], []

    def __call__(self, allocation):
        self.klds.append(self.worse * allocation.cost)
        self.sizes.append(formats_bytes(TENSORS, allocation.formats))
        return Found(Found(mean=self.klds[-1]))


@pytest.mark.parametrize("limit", [3 * LEAST, 0.02, 0.2, 10.0])
def test_no_smaller_file_is_expected_within_the_limit(limit):
    found = smallest_expected(TENSORS, cost, limit)
    assert found.cost <= limit
    if limit == 10.0:
        assert {format.name for format in found.formats.values()} == {"Q2_K"}
    else:
        assert found.cost > limit / 1.3


@pytest.mark.parametrize("worse", [0.2, 1.0, 5.0])
def test_the_measured_divergence_is_within_the_limit_and_near_it(worse):
    files = Files(worse)
    allocation, found = smallest_measured(TENSORS, cost, 0.1, files)
    assert found.score.mean <= 0.1
    assert found.score.mean > 0.07
    within = [size for size, kld in zip(files.sizes, files.klds, strict=True) if kld <= 0.1]
    assert formats_bytes(TENSORS, allocation.formats) == min(within)


def test_what_no_file_has_is_refused_after_one_comparison():
    files = Files(1.0)
    with pytest.raises(InputError, match=r"--max-kld 1e-12: the largest file has .*; allow a larger divergence"):
        smallest_measured(TENSORS, cost, 1e-12, files)
    assert len(files.klds) == 1
    with pytest.raises(InputError, match=r"--max-kld 1e-12: of the largest file .* is expected; allow a larger"):
        smallest_expected(TENSORS, cost, 1e-12)


def test_a_file_without_any_divergence_is_not_divided_by():
    _, found = smallest_measured(TENSORS, cost, 0.1, Files(0.0))
    assert found.score.mean == 0.0
