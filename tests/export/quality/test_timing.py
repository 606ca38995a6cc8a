"""Time estimates: what scales with what. Clocks are counted, not read."""

import itertools

import pytest

from sprat.export.options import ExportOptions
from sprat.export.prepare import prepare
from sprat.export.quality import timing
from sprat.export.quality.budget import Tensors
from sprat.export.quality.timing import QualityTime, Reading, quality_time

pytestmark = pytest.mark.usefixtures("short_texts")


@pytest.fixture
def timed(source, tmp_path, monkeypatch):
    """A call for a reading; every timed call takes as many seconds as it has units, and one."""
    monkeypatch.setattr(timing, "_seconds", lambda call, size: (call(size), 1.0 + size)[1])
    prepared = prepare(source, tmp_path / "out", ExportOptions())
    shapes = {name: tensor.shape for name, tensor in prepared.checkpoint.tensors.items()}
    tensors = Tensors.of(shapes, prepared.recipe)
    return lambda reading: quality_time(prepared.checkpoint.spec, prepared.checkpoint, tensors, reading)


def test_each_part_takes_what_is_done_in_it(timed):
    fast = timed(Reading(100, 0, 0, ("search",)))
    assert fast.rounding_s > 0
    assert fast.measuring_s == fast.comparing_s == 0
    assert fast.total_s == fast.rounding_s
    balanced = timed(Reading(1000, 100, 50, ("search", "feedback")))
    assert min(balanced.measuring_s, balanced.comparing_s) > 0
    assert balanced.rounding_s > fast.rounding_s


@pytest.mark.parametrize("more", ["calibration", "probes", "evaluation"])
def test_more_tokens_take_longer(more, timed):
    least = {"calibration": 1000, "probes": 100, "evaluation": 50}
    times = [timed(Reading(**(least | {more: factor * least[more]}), steps=("search",))).total_s for factor in (1, 3)]
    assert times[0] < times[1]


def test_the_text_names_the_parts_that_take_time():
    assert QualityTime(300, 400, 50).text() == "about 12 min (measuring 5 min, rounding 7 min, comparing 50 s)"
    assert QualityTime(0, 10, 0).text() == "about 10 s (rounding 10 s)"


def test_a_line_through_two_samples_is_never_negative(monkeypatch):
    spent = itertools.cycle([5.0, 3.0])
    monkeypatch.setattr(timing, "_seconds", lambda _call, _size: next(spent))
    line = timing._Line.timed(lambda _size: None, (10, 20))
    assert line.of(1000) == pytest.approx(3.0)
