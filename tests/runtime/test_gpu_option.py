"""What callers may say about the GPU."""

import pytest

from sprat.devices.plan.placement import Placement
from sprat.errors import InputError
from sprat.runtime.gpu_option import GPU_OFF, GPUOption
from sprat.runtime.loading.options import LoadOptions


def test_words_amounts_and_placements():
    assert GPUOption.of("off") == GPU_OFF
    assert GPUOption.of("auto") == GPUOption(is_off=False, falls_back=True)
    assert GPUOption.of("on") == GPUOption(is_off=False)
    assert GPUOption.of("4GB").card_bytes == GPUOption.of(4_000_000_000).card_bytes == 4_000_000_000
    placement = Placement(n_layers=4, layers=2, head=True)
    assert GPUOption.of(placement) == GPUOption(is_off=False, placement=placement)
    assert GPUOption.of(Placement(n_layers=4)).is_off


@pytest.mark.parametrize("value", ["maybe", "", "0GB", True, None, 1.5, -1])
def test_other_values_are_refused_with_what_is_expected(value):
    with pytest.raises(InputError, match=r"gpu is .*, expected 'off', 'auto', 'on', an amount"):
        LoadOptions.of("load()", {"gpu": value})
