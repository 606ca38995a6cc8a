"""From a size of a file to formats."""

import pytest

from sprat.errors import InputError
from sprat.export.quality.budget import Tensors, allocate_file, tensor_bytes
from sprat.quant.formats import get_format

SHAPES = {"blk.0.attn_q.weight": (4096, 512), "blk.1.attn_q.weight": (4096, 512)}
HEADER = 1_000_000
SIZES = {"Q4_0": 1_179_648, "Q8_0": 2_228_224}  # of one of the tensors


@pytest.fixture
def tensors():
    formats = tuple(map(get_format, SIZES))
    return Tensors(SHAPES, dict.fromkeys(SHAPES, formats), {})


def cost(name, format):
    return 1 / tensor_bytes(SHAPES[name], format)


def size_of(allocation):
    return HEADER + sum(tensor_bytes(SHAPES[name], format) for name, format in allocation.formats.items())


@pytest.mark.parametrize("missing", [0, 1, 100, 500_000])
def test_a_file_of_few_large_tensors_is_found(tensors, missing):
    """Two in Q8_0 exceed the size by ``missing`` bytes, which is far less than the next smaller formats save."""
    target = HEADER + 2 * SIZES["Q8_0"] - missing
    found = sorted(format.name for format in allocate_file(tensors, cost, target, size_of).formats.values())
    assert found == (["Q8_0", "Q8_0"] if missing == 0 else ["Q4_0", "Q8_0"])


def test_a_size_below_the_smallest_file_is_refused(tensors):
    with pytest.raises(InputError, match="smallest formats take"):
        allocate_file(tensors, cost, HEADER + 2 * SIZES["Q4_0"] - 1, size_of)
