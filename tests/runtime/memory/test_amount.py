"""Amounts of memory."""

import pytest

from sprat.errors import InputError
from sprat.runtime.memory.amount import parse_memory


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
def test_amounts_are_parsed(memory, n_bytes):
    assert parse_memory(memory) == n_bytes


@pytest.mark.parametrize("memory", ["", "GB", "3 EB", "1e9", "-3GB", "0", 0, -1, "3GB of it", "9" * 400, 2**63, True])
def test_other_texts_are_refused(memory):
    with pytest.raises(InputError, match=r"expected bytes above 0"):
        parse_memory(memory)
