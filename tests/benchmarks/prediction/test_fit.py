"""The fit of the efficiency factors recovers the factors that the measurements were generated from."""

import dataclasses
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from sprat.devices.parts import Basis, Compute, Sourced
from sprat.devices.plan.efficiency import Efficiency, load_efficiency, parse_efficiency
from sprat.devices.plan.predict import Predictor, device_rates
from sprat.devices.profile import DeviceProfile, load_profile
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.presets import preset_spec
from sprat.runtime.memory.footprint import planned_footprint

FOLDER = Path(__file__).parents[3] / "benchmarks" / "prediction"


def benchmark(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look up their module there
    spec.loader.exec_module(module)
    return module


fit, passes = benchmark("fit"), benchmark("passes")


def measured(value):
    return Sourced(value=value, basis=Basis.MEASURED, source="a test")


MACHINE = msgspec.structs.replace(
    load_profile("laptop-8gb"),
    compute=Compute(
        int8_gops=measured(200), one_token_gops=measured(50), f32_gflops=measured(100), call_us=measured(10)
    ),
)


@dataclass(frozen=True)
class Pass:
    case: str
    phase: str
    depth: int
    predictor: Predictor
    profile: DeviceProfile
    seconds: float = 0.0

    def predicted(self, efficiency: Efficiency) -> float:
        predictor = dataclasses.replace(self.predictor, efficiency=efficiency)
        return (predictor.decode(self.depth) if self.phase == "decode" else predictor.prefill(512, self.depth)).total_s

    def error(self, efficiency: Efficiency) -> float:
        return self.predicted(efficiency) / self.seconds - 1


def generated_passes(truth):
    for name in ("smollm2-135m", "r1-distill-qwen-1.5b", "deepseek-v2-lite"):
        footprint = planned_footprint(preset_spec(name), Recipe.named("int4"))
        predictor = Predictor(footprint.pass_cost, device_rates(MACHINE, truth, MACHINE.storage[0]), truth)
        for phase in ("decode", "prefill"):
            for depth in (0, 2048):
                one = Pass(f"{name} {phase} {depth}", phase, depth, predictor, MACHINE)
                yield dataclasses.replace(one, seconds=one.predicted(truth))


def test_fit_recovers_the_factors_as_far_as_the_passes_depend_on_them():
    shipped = load_efficiency()
    truth = msgspec.structs.replace(
        shipped,
        decode=msgspec.structs.replace(shipped.decode, memory=0.7, row=900.0, calls=1.5),
        prefill=msgspec.structs.replace(shipped.prefill, compute=0.8, row=400.0),
    )
    found = fit.fit(list(generated_passes(truth)), shipped)
    assert found.provenance.worst_error < 0.06
    assert found.provenance.cases[0] == "smollm2-135m decode 0"
    assert found.peaks.int8_share.value == pytest.approx(200 / (4 * 2.4 * 64), rel=0.01)
    assert found.errors.measured.value == 0.2  # the stated error is at least 20 %
    assert found.decode.storage == shipped.decode.storage  # no pass reads from storage
    assert found.errors.published == shipped.errors.published
    assert found.provenance.check is None  # no run after this fit yet
    assert parse_efficiency(msgspec.toml.encode(found)) == found


def test_a_later_run_is_recorded_and_its_worst_error_is_stated():
    shipped = load_efficiency()
    later = [dataclasses.replace(one, seconds=1.3 * one.seconds) for one in generated_passes(shipped)]
    recorded = fit.record_check(later, shipped)
    assert recorded.provenance.check.cases == len(later)
    assert recorded.provenance.check.median_error == pytest.approx(1 - 1 / 1.3, abs=1e-3)
    assert recorded.errors.measured.value == pytest.approx(1 - 1 / 1.3, abs=1e-3)
    assert (recorded.decode, recorded.prefill) == (shipped.decode, shipped.prefill)


def test_the_error_of_a_case_is_the_median_over_pairs_each_predicted_from_its_own_probe():
    shipped, slow_memory = load_efficiency(), msgspec.structs.replace(MACHINE.memory, sustained_gbps=measured(1e-3))
    footprint = planned_footprint(preset_spec("smollm2-135m"), Recipe.named("int4"))
    slow = msgspec.structs.replace(MACHINE, memory=slow_memory)
    common = {"model": "smollm2", "phase": "decode", "depth": 0, "footprint": footprint}
    expected = [passes.Measured(**common, pairs=()).predicted(shipped, machine).total_s for machine in (MACHINE, slow)]
    pairs = [(expected[0], MACHINE), (expected[1] / 1.1, slow), (9 * expected[0], MACHINE)]
    found = passes.Measured(**common, pairs=tuple(passes.Pair(*pair) for pair in pairs))
    assert found.error(shipped) == pytest.approx(0, abs=1e-9)
    assert found.case == "smollm2, decode @ 0"
