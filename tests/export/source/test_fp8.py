"""E4M3 codes and their block scales, against the definition of the format."""

import numpy as np
import pytest

from sprat.errors import FormatError
from sprat.export.source.fp8 import F8_E4M3, ScaledBlocks, scale_shape
from sprat.export.source.rows import read_rows
from sprat.export.source.tensor import ComputedRow
from sprat.quant.formats import format_names, get_format


def by_definition(code: int) -> float:
    """Sign bit, four exponent bits with bias 7, three mantissa bits; one NaN per sign, no infinity."""
    exponent, mantissa = code >> 3 & 0b1111, code & 0b111
    if exponent == 0b1111 and mantissa == 0b111:
        return float("nan")
    magnitude = mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -magnitude if code & 0x80 else magnitude


class Matrix:
    """A row source in memory."""

    def __init__(self, packed, format):
        self.packed, self.format = packed, format
        self.n_rows, self.n_columns = packed.shape[0], packed.shape[1] // format.block_bytes

    def read_into(self, start, out):
        out[...] = self.packed[start : start + len(out)]


def test_all_codes():
    codes = np.arange(256, dtype=np.uint8)
    expected = np.array([by_definition(code) for code in range(256)], np.float32)
    np.testing.assert_array_equal(F8_E4M3.dequantize(codes), expected)


@pytest.mark.parametrize(
    ("code", "value"), [(0x00, 0), (0x01, 2**-9), (0x08, 2**-6), (0x38, 1), (0x7E, 448), (0xC0, -2)]
)
def test_special_values_of_the_format(code, value):
    assert F8_E4M3.dequantize(np.array([code], np.uint8)) == value


@pytest.mark.slow
def test_all_codes_match_torch():
    torch = pytest.importorskip("torch")
    codes = np.arange(256, dtype=np.uint8)
    theirs = torch.from_numpy(codes).view(torch.float8_e4m3fn).to(torch.float32).numpy()
    np.testing.assert_array_equal(F8_E4M3.dequantize(codes), theirs)


@pytest.mark.parametrize("shape", [(1, 1), (128, 128), (300, 200), (129, 640)])
def test_each_block_has_its_scale(shape):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 0x7F, shape, np.uint8)
    scales = rng.uniform(1e-4, 2, scale_shape(shape)).astype(np.float32)
    expected = np.array(
        [
            [np.float32(by_definition(int(codes[i, j]))) * scales[i // 128, j // 128] for j in range(shape[1])]
            for i in range(shape[0])
        ],
        np.float32,
    )
    rows = ScaledBlocks(Matrix(codes, F8_E4M3), Matrix(scales.view(np.uint8), get_format("F32")))
    assert rows.format.name == "F32"
    np.testing.assert_array_equal(read_rows(rows, 0, shape[0]).view(np.float32), expected)
    start, stop = shape[0] // 2, shape[0]
    np.testing.assert_array_equal(read_rows(rows, start, stop).view(np.float32), expected[start:stop])


def test_the_shape_of_scales():
    assert scale_shape((7168, 2048)) == (56, 16)
    assert scale_shape((576, 7168)) == (5, 56)


def test_fp8_codes_cannot_be_written():
    with pytest.raises(FormatError, match="F8_E4M3 can be read but not written"):
        F8_E4M3.quantize(np.zeros((1, 4), np.float32))
    assert "F8_E4M3" not in format_names()


def test_a_computed_row_is_float32():
    row = ComputedRow(np.array([1.0, 8.0], np.float32))
    assert (row.n_rows, row.n_columns, row.format.name) == (1, 2, "F32")
    assert read_rows(row, 0, 1).view(np.float32).tolist() == [[1.0, 8.0]]
