"""Input of a report: results of sprat bench and plans of sprat plan."""

import json

import msgspec
import pytest
from bench_records import measurement
from report_page import LARGE

import sprat
from sprat.devices.bench.results import BenchTest, Label, Percentiles, write_results
from sprat.devices.plan.choose import best_plan
from sprat.devices.profile import load_profile
from sprat.devices.report.build import make_report
from sprat.devices.report.inputs import read_inputs
from sprat.errors import ResultsError


@pytest.fixture(scope="module")
def plans():
    """DeepSeek-V2-Lite on all devices, as ``sprat plan --all --json`` prints them."""
    return [plan.summary("deepseek-v2-lite") for plan in sprat.plan("deepseek-v2-lite")]


def write_plans(path, plans):
    path.write_bytes(b"".join(msgspec.json.encode(plan) + b"\n" for plan in plans))
    return path


def test_a_plan_becomes_predictions_of_prefill_and_of_decode_at_two_depths(plans, tmp_path):
    plan = next(plan for plan in plans if plan.device == "rpi5-16gb")
    inputs = read_inputs([write_plans(tmp_path / "plans.jsonl", [plan])])
    found = plan.prediction
    speeds = {record.work.test: record.samples_tps[0] for record in inputs.records}
    assert speeds == {
        "pp512": found.prefill_tokens_per_s,
        "tg128": found.decode_tokens_per_s,
        "tg128 @ d4096": found.decode_tokens_per_s_at_context,
    }
    for record in inputs.records:
        assert record.label is Label.PREDICTED
        assert record.machine is None
        assert record.error_share == found.relative_error
    assert inputs.records[0].ttft_ms.p50 == pytest.approx(1000 * found.ttft_s)
    assert not inputs.refused


def test_a_model_that_does_not_fit_has_a_row_without_a_bar(plans, tmp_path):
    path = write_plans(tmp_path / "plans.jsonl", plans)
    assert {plan.device for plan in read_inputs([path]).refused} == {"rpi-zero-2w", "rpi3-1gb"}
    page = make_report([path], tmp_path / "report.html").page.read_text(encoding="utf-8")
    assert "does not fit: " in page


def test_a_prediction_gets_the_name_of_the_run_with_the_same_size(tmp_path):
    device = load_profile("rpi5-16gb")
    footprint = sprat.plan("deepseek-v2-lite", devices=["rpi5-16gb"], quant="int4")[0].footprint
    plan = best_plan([footprint], device).summary("folder/whatever.gguf")
    weights = plan.needed_bytes - footprint.cache_bytes - footprint.buffer_bytes
    assert weights == footprint.weight_bytes
    model = msgspec.structs.replace(LARGE, size_bytes=weights)
    results = tmp_path / "results.jsonl"
    write_results(
        results, [measurement(device="rpi5-16gb", model=model, work=BenchTest.decode(32), samples_tps=(5.0,))]
    )
    report = make_report([results, write_plans(tmp_path / "plans.jsonl", [plan])], tmp_path / "report.html")
    accuracy = next(figure for figure in report.figures if figure.slug == "accuracy")
    [row] = accuracy.table.rows
    assert row[0] == "deepseek-v2-lite Q4_0 on Raspberry Pi 5, 16 GB: predicted / measured"
    assert row[4] == f"{plan.prediction.decode_tokens_per_s / 5 - 1:+.1%}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no results"),
        ("{", "line 1"),
        ('{"schema": 99}', "version 99, expected 1"),
        ('{"schema": 1}', "missing required field"),
        ('{"verdict": "fits"}', "plans have version none, expected 1"),
        ('{"verdict": "fits", "schema": [2]}', "plans have version [2], expected 1"),
        ('{"verdict": "fits", "schema": 1}', "not a plan of sprat plan"),
        ("[1, 2]", "line 1"),
        ("\udcff", "line 1"),
        (json.dumps({"verdict": "fits"}) + "\n7", "line 1"),
    ],
)
def test_other_content_is_an_error_with_its_line(content, message, tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ResultsError) as caught:
        read_inputs([path])
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"samples_tps": (1e308, 1e308)}, "1e+308 to 1e+308 tokens per second"),
        ({"samples_tps": (1e-300,)}, "1e-300 to 1e-300 tokens per second"),
        ({"ttft_ms": Percentiles(n=1, p50=0.0, p99=1.0, worst=1.0)}, "time to first token 0 ms"),
        ({"label": Label.PREDICTED, "device": "rpi5-8gb", "error_share": -1.0}, "error_share is -1"),
    ],
)
def test_all_implausible_values_are_named(changed, message, tmp_path):
    path = tmp_path / "results.jsonl"
    write_results(path, [measurement(), measurement(**changed), measurement(**changed)])
    with pytest.raises(ResultsError) as caught:
        read_inputs([path])
    assert str(caught.value).count(message) == 2


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ResultsError, match="cannot be read"):
        read_inputs([tmp_path / "none.jsonl"])


def test_the_same_plan_twice_is_one_row(plans, tmp_path):
    missing = [plan for plan in plans if plan.missing_from == "memory"]
    paths = [write_plans(tmp_path / f"{name}.jsonl", plans) for name in "ab"]
    page = make_report(paths, tmp_path / "report.html").page.read_text(encoding="utf-8")
    speed = page[page.index("<svg") : page.index("</svg>")]
    assert speed.count("of memory missing") == len(missing) == 2


def test_a_report_says_whether_memory_or_storage_is_missing(tmp_path):
    large = [plan.summary("deepseek-r1") for plan in sprat.plan("deepseek-r1", devices=["rpi5-8gb"])]
    report = make_report([write_plans(tmp_path / "plans.jsonl", large)], tmp_path / "report.html")
    assert "lacks 114.5 GiB of storage" in next(figure.finding for figure in report.figures if figure.slug == "memory")


def test_other_quantizations_of_a_model_that_ran_join_its_panel(tmp_path):
    plans = [sprat.plan("demo", devices=["rpi5-8gb"], quant=quant)[0].summary("out") for quant in ("int8", "int4")]
    size = next(plan.file_bytes for plan in plans if plan.quant == "int4")
    ran = measurement(model=msgspec.structs.replace(LARGE, name="student", quant="Q4_0", size_bytes=size))
    write_results(tmp_path / "results.jsonl", [ran])
    report = make_report(
        [tmp_path / "results.jsonl", write_plans(tmp_path / "plans.jsonl", plans)], tmp_path / "report.html"
    )
    assert {row[0] for row in report.figures[0].table.rows} == {"student"}
    assert {row[1] for row in report.figures[0].table.rows} == {
        "Cortex-A76, Q4_0",
        "Raspberry Pi 5, 8 GB, Q4_0",
        "Raspberry Pi 5, 8 GB, int8",
    }
