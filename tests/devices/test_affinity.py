"""Which cores threads are pinned to."""

from __future__ import annotations

import pytest

from sprat.devices.affinity import fast_core_ids
from sprat.devices.profile import load_profile

# A Pixel 8 as Linux numbers it: little cores first. 1 at 2.91, 4 at 2.37, 4 at 1.7 GHz.
PIXEL_8 = {0: 1.704, 1: 1.704, 2: 1.704, 3: 1.704, 4: 2.367, 5: 2.367, 6: 2.367, 7: 2.367, 8: 2.914}


def test_little_cores_of_the_device_get_no_threads():
    assert fast_core_ids(load_profile("pixel-8"), PIXEL_8) == (8, 4, 5, 6, 7)


def test_a_board_with_equal_cores_is_not_pinned():
    assert fast_core_ids(load_profile("rpi5-8gb"), dict.fromkeys(range(4), 2.4)) == ()


@pytest.mark.parametrize("other", [dict.fromkeys(range(2), 3.0), dict.fromkeys(range(9), 2.4), {**PIXEL_8, 8: 3.3}, {}])
def test_another_machine_is_not_pinned(other):
    assert fast_core_ids(load_profile("pixel-8"), other) == ()
