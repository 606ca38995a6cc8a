"""The page is self-contained, has different marks per label, and runs nothing from a results file."""

import re
from xml.etree import ElementTree

import msgspec
import pytest
from bench_records import MACHINE, MODEL, measurement
from report_page import LIMITS, Page, records, write_report

from sprat.devices.bench.results import BenchTest, Label, Machine, Moment, Percentiles
from sprat.errors import ResultsError

HOSTILE = "</title></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x00\x1b[31m"
SVG = "{http://www.w3.org/2000/svg}"


def charts(page):
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_every_figure_has_a_finding_and_charts_of_two_widths(tmp_path):
    page, report = write_report(tmp_path)
    assert [figure.slug for figure in report.figures] == [
        "speed", "first-token", "context", "memory", "accuracy", "heat",
    ]  # fmt: skip
    assert len(charts(page)) == 12
    assert {svg.get("width") for svg in charts(page)} == {"720", "360"}
    for figure in report.figures:
        assert figure.finding in Page(page).text


def test_a_chart_has_a_title_a_description_and_unique_ids(tmp_path):
    page, _ = write_report(tmp_path)
    ids = [attributes["id"] for _, attributes in Page(page).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for svg in charts(page):
        assert svg.get("role") == "img"
        assert set(svg.get("aria-labelledby").split()) <= set(ids)
        assert svg.find(f"{SVG}title").text
        assert svg.find(f"{SVG}desc").text


def test_findings_have_the_values_of_the_results(tmp_path):
    _, report = write_report(tmp_path)
    found = {figure.slug: figure.finding for figure in report.figures}
    assert found["speed"] == (
        "deepseek-v2-lite Q4_0 decodes 8.0 tokens per second on Cortex-A76, measured; "
        "1 of 2 devices reach reading speed."
    )
    assert found["first-token"] == (
        "With a prompt of 2,048 tokens, the first token of deepseek-v2-lite Q4_0 on Cortex-A76 takes 26 s (measured)."
    )
    assert "At depth 4,096, deepseek-v2-lite Q4_0 keeps 67% of its speed" in found["context"]
    assert found["memory"] == "0 of 2 fit; Raspberry Pi 4 Model B, 4 GB lacks 5.3 GiB of memory."
    assert found["accuracy"] == (
        "6 cases measured: the median error of the predictions is 10%, the worst 10%. "
        "6 cases emulated: the median error of the predictions is 33%, the worst 33%."
    )
    assert found["heat"] == (
        "Raspberry Pi 5, 8 GB reached 70 °C; no sensor reports throttling. "
        "After 300 s, student Q4_0 keeps 76% of its initial speed (measured)."
    )


def test_measured_emulated_and_predicted_never_share_a_mark(tmp_path):
    page, report = write_report(tmp_path)
    for svg in charts(page):
        for mark in svg.iter():
            labels = {label.value for label in Label} & set(mark.get("class", "").split())
            assert len(labels) <= 1
    speed = next(figure for figure in report.figures if figure.slug == "speed")
    looks = {row[2]: len(re.findall(rf'class="bar {row[2]}"', page)) for row in speed.table.rows}
    assert looks == {"measured": 2 * (2 + 1), "emulated": 2 * (2 + 1), "predicted": 2 * (2 + 1)}  # bars and legend


def test_every_value_of_a_chart_is_in_its_data_table(tmp_path):
    page, report = write_report(tmp_path)
    for svg, figure in zip(charts(page)[::2], report.figures, strict=True):
        drawn = {text.text for text in svg.iter(f"{SVG}text") if "number" in text.get("class", "").split()}
        cells = {cell for row in figure.table.rows for cell in row}
        if figure.slug == "speed":
            assert drawn <= cells


def test_the_page_loads_nothing_and_has_no_script(tmp_path):
    page, _ = write_report(tmp_path)
    parsed = Page(page)
    assert not parsed.named("script")
    assert not parsed.named("link")
    assert not [attributes for _, attributes in parsed.tags if {"src", "href", "srcset"} & set(attributes)]
    assert "url(" not in page
    assert "@import" not in page
    [policy] = [each["content"] for each in parsed.named("meta") if each.get("http-equiv")]
    assert "default-src 'none'" in policy


def test_hostile_names_are_shown_as_text(tmp_path):
    model = msgspec.structs.replace(MODEL, name=HOSTILE, digest=HOSTILE)
    machine = Machine(processor=HOSTILE, architecture=HOSTILE, n_cores=1, memory_bytes=1, system=HOSTILE)
    ttft = Percentiles(n=1, p50=1.0, p99=1.0, worst=1.0)
    fields = {"model": model, "machine": machine, "versions": {HOSTILE: HOSTILE}, "settings": {HOSTILE: HOSTILE}}
    fields |= {"notes": (HOSTILE,), "memory_map": {HOSTILE: 1}, "backend": HOSTILE}
    found = [
        measurement(work=BenchTest(test=HOSTILE, n_prompt=0, n_gen=1, depth=0), **fields),
        measurement(work=BenchTest(test=HOSTILE, n_prompt=4, n_gen=0, depth=0), ttft_ms=ttft, **fields),
        measurement(label=Label.PREDICTED, device=HOSTILE, work=BenchTest.decode(2), **fields),
    ]
    page, _ = write_report(tmp_path, found)
    parsed = Page(page)
    assert not parsed.named("script")
    assert not parsed.named("img")
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in parsed.text
    assert "\x00" not in page
    assert "\x1b" not in page
    assert charts(page)  # all are well-formed XML


def test_a_figure_without_runs_has_a_finding_and_no_chart(tmp_path):
    empty_moment = Moment(seconds=0.0)
    page, report = write_report(
        tmp_path, [measurement(sensors=(empty_moment,), before=empty_moment, after=empty_moment)]
    )
    empty = {figure.slug: figure.finding for figure in report.figures if not figure.draw}
    assert set(empty) == {"first-token", "context", "memory", "accuracy", "heat"}
    assert empty["heat"] == "No temperature sensor on Cortex-A76."
    assert "sprat bench -p" in empty["first-token"]
    assert page.count('class="empty"') == 5


def test_the_sensors_of_an_emulated_device_are_those_of_the_machine(tmp_path):
    _, report = write_report(tmp_path, [measurement(label=Label.EMULATED, device="rpi5-8gb", emulation=LIMITS)])
    assert report.figures[-1].finding == "No temperature sensor on Cortex-A76."


def test_runs_with_different_settings_are_separate_and_a_repeated_one_replaces_the_earlier(tmp_path):
    found = [
        measurement(threads=2, samples_tps=(5.0,)),
        measurement(threads=4, samples_tps=(6.0,)),
        measurement(threads=4, samples_tps=(9.0,), started="2026-11-22T03:00:00+00:00"),
    ]
    _, report = write_report(tmp_path, found)
    rows = {row[1]: row[4] for row in report.figures[0].table.rows}
    assert rows == {"Cortex-A76, 2 threads": "5.0", "Cortex-A76, 4 threads": "9.0"}


def test_the_name_of_a_cut_preset_has_its_layers(tmp_path):
    page, report = write_report(tmp_path, [measurement(), measurement(settings={"layers": 6})])
    assert {row[0] for row in report.figures[0].table.rows} == {"student Q4_0", "student, 6 layers Q4_0"}
    assert "student, 6 layers Q4_0" in Page(page).text


def test_two_machines_with_the_same_cpu_are_separate(tmp_path):
    machines = [msgspec.structs.replace(MACHINE, memory_bytes=size << 30) for size in (4, 8)]
    _, report = write_report(tmp_path, [measurement(machine=machine) for machine in machines])
    assert {row[1] for row in report.figures[0].table.rows} == {"Cortex-A76, 4.0 GiB", "Cortex-A76, 8.0 GiB"}


def test_two_devices_with_the_same_title_are_shown_by_name(tmp_path):
    found = [measurement(device=name, samples_tps=(speed,)) for name, speed in (("box-a", 5.0), ("box-b", 6.0))]
    _, report = write_report(tmp_path, found)
    assert [row[1] for row in report.figures[0].table.rows] == ["box-b", "box-a"]


def test_an_invalid_start_time_is_an_error(tmp_path):
    hot = (Moment(seconds=0.0, temperature_c=50.0),)
    with pytest.raises(ResultsError, match="started 'yesterday' is not an ISO 8601 time"):
        write_report(tmp_path, [measurement(started="yesterday", sensors=hot)])


def test_the_same_results_give_the_same_page(tmp_path):
    first, _ = write_report(tmp_path, records())
    second, _ = write_report(tmp_path, records())
    assert first == second


def test_reservations_are_counted_at_the_top_and_listed_at_the_end(tmp_path):
    page, _ = write_report(tmp_path, [measurement(notes=("other programs used 40% of the CPU during the test",))])
    text = Page(page).text
    assert "Results: 1 measured. 1 with reservations" in text
    assert "other programs used 40% of the CPU during the test" in text


def test_machine_versions_and_file_are_at_the_end(tmp_path):
    page, _ = write_report(tmp_path, [measurement()])
    text = Page(page).text
    for entry in ("Cortex-A76, 4 cores, 8.0 GiB", "Linux 6.6, aarch64", "sprat 0.1.0", "sha256:00", "2026-11-22"):
        assert entry in text


def rectangles(svg, class_):
    """Widths of the bars of a chart, in order."""
    return [float(mark.get("width")) for mark in svg.iter(f"{SVG}rect") if class_ in mark.get("class", "")]


@pytest.mark.parametrize("width", ["720", "360"])
def test_bars_of_all_models_of_a_chart_have_one_scale(width, tmp_path):
    other = msgspec.structs.replace(MODEL, name="other", size_bytes=1)
    found = [
        measurement(samples_tps=(30.0,), device="box-a"),
        measurement(samples_tps=(60.0,), device="box-b", model=other),
        measurement(samples_tps=(15.0,), device="box-c", model=other),
    ]
    page, report = write_report(tmp_path, found)
    speed = next(svg for svg in charts(page) if svg.get("width") == width)
    one, *others = rectangles(speed, "bar measured")[1:]  # without the legend's
    assert others[0] == pytest.approx(2 * one, abs=0.2)
    assert others[1] == pytest.approx(one / 2, abs=0.2)
    assert "All panels have one scale." in report.figures[0].note


def test_a_model_whose_bars_would_be_invisible_has_a_scale_of_its_own_and_an_axis(tmp_path):
    other = msgspec.structs.replace(MODEL, name="other", size_bytes=1)
    found = [measurement(samples_tps=(2.0,)), measurement(samples_tps=(2000.0,), model=other)]
    page, report = write_report(tmp_path, found)
    speed = charts(page)[0]
    assert all(width > 100 for width in rectangles(speed, "bar measured")[1:])
    assert {"2", "2,000"} <= {text.text for text in speed.iter(f"{SVG}text") if "muted" in text.get("class", "")}
    assert "Scales differ where bars would be too short to see" in report.figures[0].note


def test_memory_maps_of_all_models_have_one_scale(tmp_path):
    sizes = {"resident weights": 2 << 30}
    other = msgspec.structs.replace(MODEL, name="other", size_bytes=1)
    machines = [msgspec.structs.replace(MACHINE, memory_bytes=size << 30) for size in (4, 8)]
    found = [
        measurement(memory_map=sizes, machine=machines[0], device="box-a"),
        measurement(memory_map=sizes, machine=machines[1], device="box-b", model=other),
    ]
    page, _ = write_report(tmp_path, found)
    memory = next(svg for svg in charts(page) if "memory-wide" in svg.get("aria-labelledby"))
    small, large = rectangles(memory, "box measured")
    assert large == pytest.approx(2 * small, abs=0.2)


def test_one_thread_is_no_threads(tmp_path):
    found = [measurement(threads=threads, samples_tps=(speed,)) for threads, speed in ((1, 5.0), (4, 6.0))]
    _, report = write_report(tmp_path, found)
    assert {row[1] for row in report.figures[0].table.rows} == {"Cortex-A76, 1 thread", "Cortex-A76, 4 threads"}


def test_noise_is_no_gain_of_a_longer_context(tmp_path):
    found = [
        measurement(samples_tps=(10.0,), work=BenchTest.decode(128)),
        measurement(samples_tps=(12.2,), work=BenchTest.decode(128, 4096)),
    ]
    _, report = write_report(tmp_path, found)
    finding = next(figure.finding for figure in report.figures if figure.slug == "context")
    assert finding == "At depth 4,096, student Q4_0 decodes as fast as at depth 0 on Cortex-A76 (measured)."


def test_many_lines_are_thinned_and_the_table_has_all(tmp_path):
    found = [
        measurement(
            label=Label.PREDICTED,
            machine=None,
            device=f"box-{index}",
            samples_tps=(speed,),
            error_share=0.3,
            work=BenchTest.decode(128, depth),
        )
        for index in range(30)
        for depth, speed in ((0, 10.0 + index), (4096, 5.0 + index))
    ]
    page, report = write_report(tmp_path, found)
    context = next(figure for figure in report.figures if figure.slug == "context")
    assert "student Q4_0, 16 of 30 lines; all in the table" in page
    assert len(context.table.rows) == 60
    svg = next(svg for svg in charts(page) if "context-wide" in svg.get("aria-labelledby"))
    names = {text.text for text in svg.iter(f"{SVG}text") if "name" in text.get("class", "").split()}
    assert len(names) == 16
    assert {"box-0", "box-29"} <= names  # the slowest and the fastest
