"""Scales, text and marks: round ticks, nothing outside the chart, no overlap."""

import itertools
import math

import hypothesis
import pytest
from hypothesis import strategies

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.bars import Bar, BarRow, Mark, draw_bars
from sprat.devices.report.charts.lines import Axis, Line, draw_lines
from sprat.devices.report.charts.ratios import Pair, draw_ratios
from sprat.devices.report.charts.scale import linear, logarithmic, shared_ends, spread_out, thin_out
from sprat.devices.report.charts.stacks import MemoryRow, draw_memory
from sprat.devices.report.charts.svg import document, fit_name, fit_text, text_width, wrap_text
from sprat.devices.report.palette import DARK, LIGHT
from sprat.text import format_number

POSITIVE = strategies.floats(1e-6, 1e9)


@hypothesis.given(POSITIVE, POSITIVE)
@pytest.mark.parametrize("make", [linear, logarithmic])
def test_a_scale_contains_its_values(make, one, other):
    low, high = sorted((one, other))
    scale = make(low, high, 10.0, 210.0)
    assert 10 - 1e-6 <= scale(low) <= scale(high) <= 210 + 1e-6
    assert scale(scale.low) == pytest.approx(10)
    assert scale(scale.high) == pytest.approx(210)
    assert len(scale.ticks) >= 1


def test_ticks_are_round_values():
    assert linear(0, 23, 0, 100).ticks == (0, 5, 10, 15, 20, 25)
    assert logarithmic(0.3, 40, 0, 100).ticks == (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
    assert logarithmic(0.04, 900, 0, 100).ticks == (0.1, 1.0, 10.0, 100.0, 1000.0)


@hypothesis.given(strategies.lists(strategies.floats(0, 300), min_size=1, max_size=12))
def test_names_are_spread_in_the_order_of_their_lines(wanted):
    placed = spread_out(wanted, 16, 0, 300)
    ordered = sorted(range(len(wanted)), key=lambda index: wanted[index])
    gaps = [placed[after] - placed[before] for before, after in itertools.pairwise(ordered)]
    assert all(gap >= 16 - 1e-6 for gap in gaps)
    assert max(placed) <= 300


def test_ticks_that_are_too_close_are_omitted():
    assert thin_out([0, 128, 512, 4096, 8192], lambda value: value / 20, 40) == [0, 4096, 8192]


def test_values_have_two_or_three_significant_digits():
    assert [format_number(value) for value in (0.0423, 1.0, 8.14, 23.4, 1240.2)] == [
        "0.042",
        "1.0",
        "8.1",
        "23",
        "1,240",
    ]


@hypothesis.given(strategies.text(max_size=60), strategies.integers(20, 400))
def test_text_is_cut_to_its_room(text, room):
    assert text_width(fit_text(text, room)) <= max(room, text_width("…"))
    assert all(text_width(line) <= max(room, text_width("…")) for line in wrap_text(text, room))


def luminance(colour):
    """Relative luminance of WCAG 2.2."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear_parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear_parts, strict=True))


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_marks_stand_out_as_the_web_guidelines_ask(palette):
    for name in ("ink", "muted", "measured", "emulated", "predicted", "bad"):
        assert contrast(palette[name], palette["paper"]) >= 4.5, name  # WCAG 2.2, 1.4.3
    neighbours = [f"part{index}" for index in range(5)]
    for one, other in itertools.pairwise(neighbours):
        assert contrast(palette[one], palette[other]) >= 1.4, (one, other)


BARS = (Bar(Label.MEASURED, 8.0, 7.0, 9.0), Bar(Label.EMULATED, 6.0, 6.0, 6.0), Bar(Label.PREDICTED, 9.0, 6.0, 12.0))
LONG = "a device whose name is as long as a sentence, and then a little longer"
PANELS = {
    "bars": lambda width: draw_bars([BarRow(LONG, BARS), BarRow("b", (), remark=LONG)], width, mark=Mark(5, "mark")),
    "lines": lambda width: draw_lines(
        [Line(LONG, Label.MEASURED, ((1.0, 2.0), (5.0, 3.0))), Line("b", Label.PREDICTED, ((1.0, 2.0),))],
        Axis("across", "{:g}".format),
        Axis("up", "{:g}".format, logarithmic=True),
        width,
    ),
    "memory": lambda width: draw_memory(
        [MemoryRow(LONG, Label.PREDICTED, (("weights", 5 << 30),), 4 << 30)], ["weights"], width
    ),
    "memory that is missing": lambda width: draw_memory(
        [MemoryRow(LONG, Label.PREDICTED, (("weights", 50 << 30),), 4 << 30, 5 << 30, "of storage")], ["weights"], width
    ),
    "ratios": lambda width: draw_ratios([Pair(LONG, Label.MEASURED, 30.0, 10.0)], width, band=0.35),
}


@pytest.mark.parametrize("width", [360, 720])
@pytest.mark.parametrize("name", PANELS)
def test_nothing_is_outside_the_chart(name, width):
    panel = PANELS[name](width)
    for group in panel.elements:
        for element in group.iter():
            for key in ("x", "cx"):
                assert -1 <= float(element.get(key, 0)) <= width + 1
            if element.tag == "text" and element.get("text-anchor") == "start":
                assert (
                    float(element.get("x")) + text_width(element.text or "", int(element.get("font-size"))) <= width + 1
                )
            if element.tag == "text" and element.get("text-anchor") == "end":
                assert float(element.get("x")) >= text_width(element.text or "", int(element.get("font-size"))) - 1
            if element.tag == "rect":
                assert float(element.get("x")) + float(element.get("width")) <= width + 1
                assert not math.isnan(float(element.get("height")))
    assert document(panel, width, title="t", description="d", name="n").startswith("<svg")


def test_a_single_value_has_a_scale():
    panel = draw_lines(
        [Line("a", Label.MEASURED, ((512.0, 3.0),))], Axis("x", str, logarithmic=True), Axis("y", str), 720
    )
    assert panel.height > 200


@hypothesis.given(strategies.lists(strategies.floats(0, 1e6), min_size=1, max_size=9))
def test_panels_share_a_scale_in_which_every_panel_is_visible(highs):
    ends = shared_ends(highs)
    for high, end in zip(highs, ends, strict=True):
        assert end >= high
        assert not high or high >= end / 20
    for one, other in itertools.combinations(range(len(highs)), 2):
        if max(highs) <= 10 * min(highs):
            assert ends[one] == ends[other]


def test_a_row_that_is_cut_keeps_its_quantization():
    names = [f"Raspberry Pi 4 Model B, 8 GB, {quant}" for quant in ("int4", "int8")]
    cut = [fit_name(name, 180) for name in names]
    assert [name.endswith(quant) for name, quant in zip(cut, ("int4", "int8"), strict=True)] == [True, True]
    assert all(text_width(name) <= 180 for name in cut)
    assert fit_name("short, int4", 180) == "short, int4"
    assert fit_name("a name without a comma that is too long", 100).endswith("…")


def test_on_a_phone_a_long_name_has_a_line_of_its_own():
    row = MemoryRow("Raspberry Pi 4 Model B, 8 GB, int4", Label.PREDICTED, (("weights", 3 << 30),), 4 << 30)
    short = MemoryRow("Pi 4, int4", Label.PREDICTED, (("weights", 3 << 30),), 4 << 30)
    panel = draw_memory([row], ["weights"], 360)
    assert "Raspberry Pi 4 Model B, 8 GB, int4" in {element.text for element in panel.elements}
    assert panel.height > draw_memory([short], ["weights"], 360).height
