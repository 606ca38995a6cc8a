"""Amounts of memory."""

import pytest

from sprat.devices.plan.footprint import Footprint
from sprat.errors import DoesNotFitError, InputError
from sprat.runtime.memory import available_bytes, parse_memory, refusal


@pytest.mark.parametrize(
    ("memory", "n_bytes"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("3GB", 3 * 10**9),
        ("3gb", 3 * 10**9),
        ("3G", 3 * 10**9),
        ("2.5 GiB", 5 * 2**29),
        ("512MiB", 2**29),
        ("512 Mi", 2**29),
        ("100kB", 10**5),
    ],
)
def test_amounts_are_read(memory, n_bytes):
    assert parse_memory(memory) == n_bytes


@pytest.mark.parametrize("memory", ["", "GB", "3 EB", "1e9", "-3GB", "0", 0, -1, "3GB of it"])
def test_other_texts_are_refused(memory):
    with pytest.raises(InputError, match=r"expected bytes above 0"):
        parse_memory(memory)


def footprint(**changes):
    parts = {
        "quant": "int4",
        "resident_bytes": 10**9,
        "routed_bytes": 10**9,
        "cache_bytes_per_token": 10**5,
        "context": 4096,
        "buffer_bytes": 10**8,
    }
    return Footprint(**(parts | changes))


def test_what_fits_is_not_refused():
    assert refusal(footprint(), footprint().total_bytes, "it") is None


def test_the_refusal_has_numbers_and_a_shorter_context():
    error = refusal(footprint(), footprint().total_bytes - 1, "x.gguf")
    assert isinstance(error, DoesNotFitError)
    assert str(error) == (
        "x.gguf needs 2.51 GB (weights 2.00 GB, cache for 4096 tokens 0.41 GB, buffers 0.10 GB) but may use 2.51 GB; "
        "load it with context=3840, or give it more memory"
    )


def test_where_no_context_is_short_enough_fewer_bits_help():
    assert "fewer bits (sprat quantize" in str(refusal(footprint(), 10**9, "x.gguf"))


def test_this_machine_has_memory():
    assert available_bytes() > 2**20
