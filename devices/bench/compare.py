"""Compares two results files test by test, with a confidence interval of the speedup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sprat.devices.bench.results import Label, Measurement
from sprat.devices.bench.statistics import Ratio, ratio_interval
from sprat.errors import ResultsError

__all__ = ["Comparison", "compare", "differences"]

_MIN_SAMPLES = 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """One test in both files; a ``ratio`` above 1 means that the second is faster."""

    before: Measurement
    after: Measurement
    ratio: Ratio

    @property
    def verdict(self) -> str:
        """``faster``, ``slower`` or ``no difference``, at the confidence of the ratio's interval."""
        if not self.ratio.differs:
            return "no difference"
        return "faster" if self.ratio.value > 1 else "slower"


def compare(before: Sequence[Measurement], after: Sequence[Measurement], confidence: float = 0.95) -> list[Comparison]:
    """Pair the records of two files test by test.

    Args:
        before: records of the first file.
        after: records of the second file.
        confidence: confidence level of the intervals.

    Raises:
        ResultsError: the files have different tests, models or labels, or too few samples; the message names every
            difference.
    """
    before, after = _ran("first", before), _ran("second", after)
    problems = [*_repeated("first", before), *_repeated("second", after)]
    first, second = ({record.work.test: record for record in side} for side in (before, after))
    problems += [f"only the first file has {test}" for test in first if test not in second]
    problems += [f"only the second file has {test}" for test in second if test not in first]
    both = [(record, second[test]) for test, record in first.items() if test in second]
    problems += dict.fromkeys(problem for pair in both for problem in _why_not(*pair))
    if problems:
        raise ResultsError(
            f"the files cannot be compared: {'; '.join(problems)}; run the same `sprat bench` command for both"
        )
    return [Comparison(a, b, ratio_interval(b.samples_tps, a.samples_tps, confidence)) for a, b in both]


def differences(before: Measurement, after: Measurement) -> list[str]:
    """Differences in backend, threads, machine, versions and settings, one line each."""
    sides = [_circumstances(record) for record in (before, after)]
    names = dict.fromkeys((*sides[0], *sides[1]))
    values = [(name, *(str(side.get(name, "none")) for side in sides)) for name in names]
    return [f"{name}: {a} -> {b}" for name, a, b in values if a != b]


def _circumstances(record: Measurement) -> dict[str, object]:
    machine = record.machine
    return {
        "label": record.label_text,
        "backend": record.backend,
        "threads": record.threads,
        "CPU": machine and f"{machine.processor}, {machine.n_cores} cores",
        "system": machine and machine.system,
        **record.versions,
        **record.settings,
    }


def _ran(which: str, records: Sequence[Measurement]) -> list[Measurement]:
    """Records without the predictions, which accompany emulated results and have no samples to compare."""
    ran = [record for record in records if record.label is not Label.PREDICTED]
    if not ran:
        raise ResultsError(f"the {which} file has only predictions, no samples to compare; run `sprat bench -o`")
    return ran


def _repeated(which: str, records: Sequence[Measurement]) -> Iterator[str]:
    tests = [record.work.test for record in records]
    yield from (f"the {which} file has {test} more than once" for test in dict.fromkeys(tests) if tests.count(test) > 1)


def _why_not(before: Measurement, after: Measurement) -> Iterator[str]:
    """Why two records of one test cannot be compared."""
    a, b = before.model, after.model
    for name in ("name", "quant", "size_bytes", "n_params", "random_weights"):
        if getattr(a, name) != getattr(b, name):
            yield f"the model's {name} is {getattr(a, name)} in the first and {getattr(b, name)} in the second"
    if not a.random_weights and a.digest != b.digest:  # files with random weights differ in bytes, not in work
        yield "the digests of the model's files differ"
    if before.label is not after.label:
        yield f"the first is {before.label}, the second {after.label}"
    if min(len(before.samples_tps), len(after.samples_tps)) < _MIN_SAMPLES:
        yield f"{before.work.test} has a single sample (run with -r {_MIN_SAMPLES} or more)"
