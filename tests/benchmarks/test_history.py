"""benchmarks/history.py: what is kept of a comparison, and the chart of all of them."""

import importlib.util
from pathlib import Path

import pytest

COMMAND = Path(__file__).parents[2] / "benchmarks" / "history.py"
RESULTS = {"decode_ratio": 1.23456, "memory_share": 0.9, "decode_tokens_per_second": 100.0, "threads": 2}


@pytest.fixture(scope="module")
def history():
    spec = importlib.util.spec_from_file_location("history", COMMAND)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ratios_are_kept_and_times_are_not(history):
    kept = history.entry(RESULTS, "abc123")
    assert kept["ratios"] == {"decode_ratio": 1.235, "memory_share": 0.9}
    assert kept["commit"] == "abc123"
    assert "cores" in kept["machine"]


def test_results_without_a_ratio_are_refused(history):
    with pytest.raises(SystemExit, match=r"vs_llamacpp\.py --json"):
        history.entry({"threads": 2}, "abc123")


def test_entries_are_appended_and_read_in_order(history, tmp_path):
    path = tmp_path / "history.jsonl"
    assert history.read(path) == []
    for commit in ("first", "second"):
        history.append(history.entry(RESULTS, commit), path)
    assert [each["commit"] for each in history.read(path)] == ["first", "second"]


def test_the_chart_names_ratios_machines_and_commits(history, tmp_path):
    mpl = pytest.importorskip("matplotlib")
    entries = [history.entry(RESULTS, "0123456789ab"), history.entry({"other_ratio": 2.0}, "ba9876543210")]
    with mpl.rc_context({"svg.fonttype": "none"}):
        history.draw(entries, tmp_path / "charts" / "history.svg")
    text = (tmp_path / "charts" / "history.svg").read_text()
    assert all(word in text for word in ("decode_ratio", "other_ratio", "01234567", "ba987654", "cores"))
