"""What the planner says of the same tests: the figures for what no emulation can impose, under a label of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from sprat.devices.bench.results import BenchTest, Label, Measurement
from sprat.devices.plan.efficiency import load_efficiency
from sprat.devices.plan.plan import Plan
from sprat.devices.plan.predict import Predictor, device_rates
from sprat.devices.profile import DeviceProfile, Storage
from sprat.runtime.footprint import file_footprint
from sprat.runtime.open_model import open_model

__all__ = ["predictions"]


def predictions(
    emulated: Sequence[Measurement], path: str, profile: DeviceProfile, storage: Storage
) -> Iterator[Measurement]:
    """A predicted record for each emulated one; none where the planner says that the model does not run.

    Args:
        emulated: records of one model.
        path: its file.
        profile: the device.
        storage: of the device, where the file would lie.
    """
    model = open_model(path)
    context = max(record.work.depth + record.work.n_tokens for record in emulated)
    footprint = file_footprint(model.spec, model.file, context=context)
    plan = Plan(profile, footprint, profile.usable_bytes)
    if footprint.pass_cost is None or not plan.runs:
        return
    efficiency = load_efficiency()
    rates = device_rates(profile, efficiency, storage)
    predictor = Predictor(footprint.pass_cost, rates, efficiency, plan.held_experts_share)
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
            error_share=efficiency.errors.of(rates.basis),
            memory_map={part.name: part.size_bytes for part in plan.memory_map()},
        )


def _seconds(predictor: Predictor, work: BenchTest, batch: int) -> float:
    """Of the whole test; a generated token is predicted in the middle of its answer."""
    if work.n_prompt:
        return predictor.prefill(work.n_prompt, work.depth, batch).total_s
    return work.n_gen * predictor.decode(work.depth + work.n_gen // 2).total_s
