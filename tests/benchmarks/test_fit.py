"""The fit of the calibration: it finds factors that explain what was measured, from figures made with known ones."""

import dataclasses
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from sprat.devices.parts import Basis, Compute, Figure
from sprat.devices.plan.efficiency import Calibration, load_calibration, parse_calibration
from sprat.devices.plan.predict import Predictor, device_rates
from sprat.devices.profile import DeviceProfile, load_profile
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.presets import shape_spec
from sprat.runtime.footprint import planned_footprint


def benchmark(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / "benchmarks" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # records of it look themselves up there
    spec.loader.exec_module(module)
    return module


fit, timed = benchmark("fit"), benchmark("passes")


def measured(value):
    return Figure(value=value, basis=Basis.MEASURED, source="a test")


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

    def predicted(self, calibration: Calibration) -> float:
        predictor = dataclasses.replace(self.predictor, calibration=calibration)
        return (predictor.decode(self.depth) if self.phase == "decode" else predictor.prefill(512, self.depth)).total_s

    def error(self, calibration: Calibration) -> float:
        return self.predicted(calibration) / self.seconds - 1


def passes(truth):
    for name in ("smollm2-135m", "r1-distill-qwen-1.5b", "deepseek-v2-lite"):
        footprint = planned_footprint(shape_spec(name), Recipe.named("int4"))
        predictor = Predictor(footprint.work, device_rates(MACHINE, truth, MACHINE.storage[0]), truth)
        for phase in ("decode", "prefill"):
            for depth in (0, 2048):
                one = Pass(f"{name} {phase} {depth}", phase, depth, predictor, MACHINE)
                yield dataclasses.replace(one, seconds=one.predicted(truth))


def test_factors_that_made_the_figures_are_found_up_to_what_they_explain():
    shipped = load_calibration()
    truth = msgspec.structs.replace(
        shipped,
        decode=msgspec.structs.replace(shipped.decode, memory=0.7, row=900.0, calls=1.5),
        prefill=msgspec.structs.replace(shipped.prefill, compute=0.8, row=400.0),
    )
    found = fit.fit(list(passes(truth)), shipped)
    assert found.provenance.worst_error < 0.06
    assert found.provenance.cases[0] == "smollm2-135m decode 0"
    assert found.peaks.int8_share.value == pytest.approx(200 / (4 * 2.4 * 64), rel=0.01)
    assert found.errors.measured.value == 0.2  # never promised to be better than that
    assert found.decode.storage == shipped.decode.storage  # nothing was measured of it
    assert found.errors.published == shipped.errors.published
    assert found.provenance.check is None  # of these factors nothing is known yet
    assert parse_calibration(msgspec.toml.encode(found)) == found


def test_a_later_run_is_noted_and_what_it_missed_is_promised():
    shipped = load_calibration()
    later = [dataclasses.replace(one, seconds=1.3 * one.seconds) for one in passes(shipped)]
    noted = fit.record_check(later, shipped)
    assert noted.provenance.check.cases == len(later)
    assert noted.provenance.check.median_error == pytest.approx(1 - 1 / 1.3, abs=1e-3)
    assert noted.errors.measured.value == pytest.approx(1 - 1 / 1.3, abs=1e-3)
    assert (noted.decode, noted.prefill) == (shipped.decode, shipped.prefill)


def test_of_several_pairs_the_median_error_counts_each_with_its_own_probe():
    shipped, halved = load_calibration(), msgspec.structs.replace(MACHINE.memory, sustained_gbps=measured(1e-3))
    footprint = planned_footprint(shape_spec("smollm2-135m"), Recipe.named("int4"))
    slow = msgspec.structs.replace(MACHINE, memory=halved)
    common = {"model": "smollm2", "phase": "decode", "depth": 0, "footprint": footprint}
    expected = [timed.Measured(**common, pairs=()).predicted(shipped, machine).total_s for machine in (MACHINE, slow)]
    pairs = [(expected[0], MACHINE), (expected[1] / 1.1, slow), (9 * expected[0], MACHINE)]
    found = timed.Measured(**common, pairs=tuple(timed.Pair(*pair) for pair in pairs))
    assert found.error(shipped) == pytest.approx(0, abs=1e-9)
    assert found.case == "smollm2, decode @ 0"
