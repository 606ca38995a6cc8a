"""The planner's predictions for the tests of an emulated device: they cover what emulation cannot impose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from sprat.devices.bench.results import BenchTest, Label, Measurement
from sprat.devices.plan.counted import load_counted
from sprat.devices.plan.efficiency import load_efficiency
from sprat.devices.plan.plan import Plan
from sprat.devices.plan.predict import Predictor, device_rates
from sprat.devices.profile import DeviceProfile, Storage
from sprat.runtime.memory.footprint import file_footprint
from sprat.runtime.open_model import open_model

__all__ = ["predictions"]


def predictions(
    emulated: Sequence[Measurement], path: str, profile: DeviceProfile, storage: Storage
) -> Iterator[Measurement]:
    """Yield a predicted record for each emulated one; none if the plan says that the model does not run.

    Args:
        emulated: records of one model.
        path: the model file.
        profile: the device.
        storage: the device's storage that holds the file.
    """
    model = open_model(path)
    context = max(record.work.depth + record.work.n_tokens for record in emulated)
    footprint = file_footprint(model.spec, model.file, context=context)
    plan = Plan(profile, footprint, profile.usable_bytes)
    if footprint.pass_cost is None or not plan.runs:
        return
    efficiency, cycles = load_efficiency(), load_counted().relative_cycles(profile.fast_cores)
    rates = device_rates(profile, efficiency, storage)
    predictor = Predictor(footprint.pass_cost, rates, efficiency, plan.held_experts_share, cycles)
    for record in emulated:
        yield Measurement(
            label=Label.PREDICTED,
            device=profile.name,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=None,
            versions={name: version for name, version in record.versions.items() if name == "sprat"},
            model=record.model,
            backend=record.backend,
            threads=profile.n_threads,
            settings=record.settings,
            work=record.work,
            samples_tps=(record.work.n_tokens / _seconds(predictor, record.work, plan.settings.batch),),
            error_share=rates.relative_error,
            memory_map={part.name: part.size_bytes for part in plan.memory_map()},
        )


def _seconds(predictor: Predictor, test: BenchTest, batch: int) -> float:
    """Predicted time of a whole test; decode is predicted at the depth in the middle of the test."""
    if test.n_prompt:
        return predictor.prefill(test.n_prompt, test.depth, batch).total_s
    return test.n_gen * predictor.decode(test.depth + test.n_gen // 2).total_s
