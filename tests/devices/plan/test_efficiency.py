from importlib import resources

import pytest

from sprat.devices.parts import Basis
from sprat.devices.plan.efficiency import load_efficiency, parse_efficiency
from sprat.errors import DeviceError

SHIPPED = (resources.files("sprat.devices.plan") / "efficiency.toml").read_text()


def test_the_shipped_factors_have_a_provenance_and_small_errors():
    efficiency = load_efficiency()
    assert len(efficiency.provenance.cases) >= 8
    assert efficiency.provenance.median_error <= 0.15
    assert efficiency.provenance.worst_error <= 0.35
    assert all(len(case) > 5 for case in efficiency.provenance.cases)


def test_the_shipped_factors_were_checked_on_passes_after_the_fit():
    check = load_efficiency().provenance.check
    assert check.cases >= 8
    assert check.median_error <= 0.15
    assert check.worst_error <= 0.35


def test_the_stated_error_is_larger_for_a_weaker_basis():
    errors = load_efficiency().errors
    assert errors.of(Basis.MEASURED) < errors.of(Basis.PUBLISHED) < errors.of(Basis.ASSUMED) < 1


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[decode]", "[decoding]", "unknown field `decoding`|missing required field `decode`"),
        ("memory = ", "memory = -", "> 0"),
    ],
)
def test_a_wrong_factor_is_named(old, new, complaint):
    assert old in SHIPPED
    with pytest.raises(DeviceError, match=complaint):
        parse_efficiency(SHIPPED.replace(old, new, 1).encode())
