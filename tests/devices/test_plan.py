import dataclasses

import pytest

from sprat.devices.footprint import Footprint
from sprat.devices.plan import choose_quant
from sprat.devices.profile import load_profile
from sprat.errors import DoesNotFitError

PI5 = load_profile("rpi5-8gb")
GB = 10**9
INT8 = Footprint(
    quant="int8",
    resident_bytes=3 * GB,
    routed_bytes=13 * GB,
    cache_bytes_per_token=31_104,
    context=4096,
    buffer_bytes=GB // 4,
)
INT4 = dataclasses.replace(INT8, quant="int4", resident_bytes=1 * GB, routed_bytes=5 * GB)


def test_the_first_that_fits_is_taken():
    plan = choose_quant([INT8, INT4], PI5)
    assert plan.footprint is INT4
    assert plan.fits
    assert plan.spare_bytes == PI5.usable_bytes - 6 * GB - 31_104 * 4096 - GB // 4
    small = dataclasses.replace(INT8, routed_bytes=0)
    assert choose_quant([small, INT4], PI5).footprint is small


def test_a_memory_map_accounts_for_every_byte_of_the_device():
    plan = choose_quant([INT4], PI5)
    sizes = {part.name: part.size_bytes for part in plan.memory_map()}
    assert list(sizes) == ["resident weights", "experts", "cache", "buffers", "reserve", "spare"]
    assert sum(sizes.values()) == PI5.memory.total_bytes.value


def test_a_refusal_says_by_how_many_bytes_and_which_context_would_fit():
    exact = PI5.usable_bytes - INT4.weight_bytes - INT4.buffer_bytes - 1000 * INT4.cache_bytes_per_token
    tight = dataclasses.replace(INT4, context=50_000, resident_bytes=INT4.resident_bytes + exact)
    with pytest.raises(DoesNotFitError) as caught:
        choose_quant([tight], PI5)
    missing = tight.total_bytes - PI5.usable_bytes
    assert f"int4 does not fit on rpi5-8gb: {missing:,} bytes too large at a context of 50,000 tokens" in str(caught.value)
    assert "a context of 1,000 tokens would fit" in str(caught.value)


def test_a_model_that_no_context_helps_is_told_apart():
    with pytest.raises(DoesNotFitError, match=r"int8 does not fit .* no context is short enough: use a smaller model"):
        choose_quant([INT8], PI5)


def test_force_takes_the_smallest_and_still_says_that_it_does_not_fit():
    device = load_profile("rpi-zero-2w")
    plan = choose_quant([INT8, INT4], device, force=True)
    assert plan.footprint is INT4
    assert not plan.fits
    assert "does not fit on rpi-zero-2w" in plan.headline
    assert "spare" not in {part.name for part in plan.memory_map()}
