import json

import pytest
from bench_records import measurement
from command_line import run
from report_page import records

from sprat.devices.bench.results import write_results


@pytest.fixture
def results(tmp_path):
    write_results(tmp_path / "results.jsonl", records())
    return tmp_path / "results.jsonl"


def test_findings_come_first_then_the_file_then_the_next_step(results, tmp_path, capsys):
    page = tmp_path / "deep" / "report.html"
    code, out, _ = run(capsys, "report", results, "-o", page)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("deepseek-v2-lite Q4_0 decodes 8.0 tokens per second")
    assert lines[-2:] == [f"written: {page}", f"next:  open {page} in a browser"]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]


def test_charts_are_written_as_png_on_request(results, tmp_path, capsys):
    pytest.importorskip("resvg_py")
    folder = tmp_path / "pictures"
    code, out, _ = run(capsys, "report", results, "-o", tmp_path / "report.html", "--png", folder, "--json")
    record = json.loads(out)
    assert code == 0
    assert set(record["findings"]) == {"speed", "first-token", "context", "memory", "accuracy", "heat"}
    assert record["pictures"] == [str(folder / f"{slug}.png") for slug in record["findings"]]
    for path in folder.iterdir():
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG")
        assert int.from_bytes(data[16:20]) == 2 * (720 + 2 * 28)  # the width, at two pixels per point


def test_png_without_resvg_is_an_error_that_names_the_extra(results, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "resvg_py", None)
    code, out, err = run(capsys, "report", results, "-o", tmp_path / "report.html", "--png", tmp_path / "pictures")
    assert code == 2
    assert out == ""
    assert "pip install 'sprat[report]'" in err


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "has no results"), (b"{", "not a result of sprat bench"), (b'{"schema": 2}', "version 2, expected 1")],
)
def test_a_wrong_file_prints_one_line_and_exits_with_2(content, expected, tmp_path, capsys):
    path = tmp_path / "odd.jsonl"
    path.write_bytes(content)
    code, out, err = run(capsys, "report", path, "-o", tmp_path / "report.html")
    assert code == 2
    assert out == ""
    assert expected in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "report.html").exists()


def test_a_page_that_cannot_be_written_is_an_error(tmp_path, capsys):
    write_results(tmp_path / "results.jsonl", [measurement()])
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "report", tmp_path / "results.jsonl", "-o", tmp_path / "file" / "report.html")
    assert code == 2
    assert "cannot be written" in err


def test_a_page_is_replaced_and_another_file_only_by_force(results, tmp_path, capsys):
    page = tmp_path / "report.html"
    for _ in range(2):
        assert run(capsys, "report", results, "-o", page)[0] == 0
    page.write_text("<html>mine</html>")
    code, out, err = run(capsys, "report", results, "-o", page)
    assert (code, out) == (2, "")
    assert "report.html: exists and is not a page of sprat report; choose another path with -o" in err
    assert run(capsys, "report", results, "-o", results)[0] == 2
    assert page.read_text() == "<html>mine</html>"
    assert run(capsys, "report", results, "-o", page, "--force")[0] == 0
    assert page.read_text().startswith("<!doctype html>")


def test_a_plan_of_impossible_speed_or_without_a_device_is_one_line(tmp_path, capsys):
    plan = json.loads(run(capsys, "plan", "r1-distill-qwen-1.5b", "--device", "rpi5-8gb", "--json")[1])
    for change, expected in (
        ({"device": ""}, "not a plan of sprat plan"),
        ({"prediction": plan["prediction"] | {"decode_tokens_per_s": 5e-324}}, "no machine gives such values"),
    ):
        (tmp_path / "plan.jsonl").write_text(json.dumps(plan | change))
        code, _, err = run(capsys, "report", tmp_path / "plan.jsonl", "-o", tmp_path / "report.html")
        assert code == 2
        assert expected in err
