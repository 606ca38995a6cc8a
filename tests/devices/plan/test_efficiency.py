from importlib import resources

import pytest

from sprat.devices.parts import Basis
from sprat.devices.plan.efficiency import load_calibration, parse_calibration
from sprat.errors import DeviceError

SHIPPED = (resources.files("sprat.devices.plan") / "efficiency.toml").read_text()


def test_the_shipped_factors_say_where_they_come_from():
    calibration = load_calibration()
    assert len(calibration.provenance.cases) >= 8
    assert calibration.provenance.median_error <= 0.15
    assert calibration.provenance.worst_error <= 0.35
    assert all(len(case) > 5 for case in calibration.provenance.cases)


def test_they_were_checked_on_passes_that_they_had_not_seen():
    check = load_calibration().provenance.check
    assert check.cases >= 8
    assert check.median_error <= 0.15
    assert check.worst_error <= 0.35


def test_a_prediction_states_a_larger_error_the_less_is_known():
    errors = load_calibration().errors
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
        parse_calibration(SHIPPED.replace(old, new, 1).encode())
