"""Speed as part of the objective, by the counted instructions of a Raspberry Pi's kernels."""

from functools import partial

import pytest

from sprat.devices.plan.choose import best_plan
from sprat.devices.plan.counted import load_counted
from sprat.devices.plan.format_speed import FormatSpeed
from sprat.devices.profile import find_profile
from sprat.export.quality.budget import Tensors, allocated_formats, tensor_bytes
from sprat.export.quality.costs import packaged_cost
from sprat.export.quality.options import QualityOptions, Target
from sprat.export.quality.speed import allocate_for
from sprat.runtime.arch.presets import preset_spec
from sprat.runtime.arch.tensors import expected_tensors
from sprat.runtime.memory.footprint import planned_footprint, planned_recipes

DEVICE = "rpi5-8gb"


@pytest.fixture(scope="module")
def spec():
    return preset_spec("qwen3-0.6b")


def allocation(spec, weight, target=None):
    recipe = planned_recipes(spec, "int4")[0]
    tensors = Tensors.of(expected_tensors(spec), recipe)
    options = QualityOptions("fast", target or Target(), speed_weight=weight, device=DEVICE)
    found = allocate_for(spec, tensors, partial(packaged_cost, spec), recipe, options, lambda _found: 0)
    return found, found.recipe("mix", tensors), tensors


def speed(spec, recipe):
    return best_plan([planned_footprint(spec, recipe)], find_profile(DEVICE)).prediction.decode_tokens_per_s


def test_every_allocated_format_was_counted_on_the_cores_of_a_pi():
    for kind in ("Cortex-A53", "Cortex-A72", "Cortex-A76"):
        assert {format.name for format in allocated_formats()} <= load_counted().cores[kind].one_token_of.keys()


def test_more_weight_is_faster_and_less_close(spec):
    found = [allocation(spec, weight) for weight in (0.0, 20.0, 1000.0)]
    speeds = [speed(spec, recipe) for _, recipe, _ in found]
    costs = [each.cost for each, _, _ in found]
    assert speeds[0] < speeds[1] < speeds[2]
    assert costs[0] < costs[1] < costs[2]


def test_the_size_is_kept_whatever_the_weight(spec):
    for weight in (0.0, 5.0):
        found, _, tensors = allocation(spec, weight, Target(bits_per_weight=5.0))
        nbytes = sum(tensor_bytes(shape, found.formats[name]) for name, shape in tensors.shapes.items())
        assert 8 * nbytes <= 5.0 * tensors.n_weights


def test_many_instructions_cost_time_and_few_bytes_do_not():
    device = FormatSpeed.of(find_profile(DEVICE))
    assert device.seconds(1e6, 0, "Q3_K") > device.seconds(1e6, 0, "Q4_0")
    assert device.seconds(0, 1e9, "Q3_K") == pytest.approx(1e9 / device.read_bytes)


def test_a_format_that_was_not_counted_is_taken_as_fast_as_q4_0():
    assert load_counted().relative_cycles(find_profile(DEVICE).fast_cores)["Q4_0"] == 1.0
    device = FormatSpeed.of(find_profile(DEVICE))
    assert device.seconds(1e6, 0, "IQ1_S") == device.seconds(1e6, 0, "Q4_0")
