"""Conversion between formats, and the scan for NaN and Inf; with and without the native core."""

import numpy as np
import pytest
from weights import ordinary_weights

from sprat.errors import FormatError
from sprat.quant import convert
from sprat.quant.convert import first_nonfinite, quantize_from
from sprat.quant.formats import format_names, get_format, native


@pytest.fixture(params=["native", "numpy"], autouse=True)
def core(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(native, "core", None)
        monkeypatch.setattr(convert, "_CHUNK_WEIGHTS", 3 * 512)


@pytest.mark.parametrize("target", format_names())
@pytest.mark.parametrize("source", ["F32", "F16", "BF16", "Q4_1", "Q8_0"])
def test_conversion_equals_dequantize_then_quantize(source, target):
    source, target = get_format(source), get_format(target)
    packed = source.quantize(ordinary_weights()["student-t"][:14].reshape(7, 2, 512))
    converted = quantize_from(packed, source, target)
    assert converted.shape == (7, 2, target.row_bytes(512))
    np.testing.assert_array_equal(converted, target.quantize(source.dequantize(packed)))


def test_rows_that_do_not_divide_into_blocks_are_an_error():
    packed = get_format("F16").quantize(np.zeros((2, 100), np.float32))
    with pytest.raises(FormatError, match="Q4_0: a row of 100 weights"):
        quantize_from(packed, get_format("F16"), get_format("Q4_0"))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("places", [[0], [2047], [2048, 5000], [300_000, 299_999], [699_999]])
def test_the_first_nonfinite_weight_is_found(name, bad, places):
    weights = np.full((700, 1000), 3.0, np.float32)
    weights.reshape(-1)[places] = bad
    assert first_nonfinite(get_format(name).quantize(weights), get_format(name)) == min(places)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q4_0"])
def test_finite_weights_pass_the_scan(name):
    found = get_format(name)
    largest = np.float32(3e38 if found.file_type in {0, 32} else 60000)
    assert first_nonfinite(found.quantize(np.full((3, 512), largest)), found) is None


def test_a_nonfinite_scale_is_found():
    packed = get_format("Q8_0").quantize(np.ones((1, 320), np.float32))
    packed[0, 5 * 34 : 5 * 34 + 2] = np.float16([np.nan]).view(np.uint8)
    assert first_nonfinite(packed, get_format("Q8_0")) == 5 * 32
