"""KL divergence by file size: calibrated files, beside llama-quantize's."""

import json
import sys

import pytest
from command_line import run
from tiny_checkpoint import write_checkpoint

from sprat.app import frontier as app
from sprat.app.frontier import frontier
from sprat.errors import BackendError, InputError
from sprat.export.quality.llama_quantize import llama_quantize
from sprat.export.texts import calibration_text, evaluation_text


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("sprat.export.calibration.evaluation_text", lambda: evaluation_text()[:1500])
    return write_checkpoint(tmp_path / "source", "qwen2", num_hidden_layers=2)


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(calibration_text()[:2500])
    return [file]


def test_more_bytes_buy_less_divergence(source, text, tmp_path, monkeypatch):
    monkeypatch.setattr(app, "has_llama_quantize", lambda: False)
    picture = tmp_path / "frontier.svg"
    found = frontier(source, sizes=["q4_0", "q8_0"], devices=["rpi5-8gb"], calibration=text, picture=picture)
    small, large = found.points
    assert (small.maker, small.mix, large.mix) == ("sprat", "q4_0", "q8_0")
    assert small.nbytes < large.nbytes
    assert 0 < large.kld < small.kld
    assert small.same_top <= large.same_top <= 1
    assert small.tokens_per_s["rpi5-8gb"] > 0
    assert "llama-quantize's files are left out" in found.notes[0]
    drawn = picture.read_text()
    assert drawn.startswith("<svg")
    assert "<style>" in drawn
    assert "rpi5-8gb: divergence against predicted speed" in drawn


def test_the_command_prints_a_table_and_json(source, text, capsys, monkeypatch):
    monkeypatch.setattr(app, "has_llama_quantize", lambda: False)
    arguments = ("frontier", str(source), "--sizes", "q4_0", "--calibration", str(text[0]))
    status, out, _ = run(capsys, *arguments)
    assert status == 0
    assert "| sprat | q4_0 |" in " ".join(out.split())
    assert "note: llama-quantize's files are left out" in out
    assert out.splitlines()[-1].startswith("next:  sprat export")
    record = json.loads(run(capsys, *arguments, "--json")[1])
    assert record["points"][0]["mix"] == "q4_0"
    assert record["n_tokens"] > 0


@pytest.mark.slow
def test_llama_quantize_is_compared_in_the_same_bytes(source, text):
    pytest.importorskip("llama_cpp")
    ours, theirs = frontier(source, sizes=["q4_0"], calibration=text).points
    assert (ours.maker, theirs.maker) == ("sprat", "llama-quantize")
    assert ours.nbytes <= theirs.nbytes
    assert theirs.kld > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": []}, "no size was given"),
        ({"sizes": ["q4_m"]}, "unknown size 'q4_m'"),
        ({"quality": "fast"}, "unknown quality 'fast'"),
        ({"devices": ["rpi9"]}, "unknown device"),
        ({"calibration": ["absent.txt"]}, "absent.txt"),
    ],
)
def test_what_cannot_be_measured_is_refused(source, options, message):
    with pytest.raises(InputError, match=message):
        frontier(source, **options)


def test_a_large_model_is_refused(source, monkeypatch):
    monkeypatch.setattr(app, "MAX_COMPARED", 1000)
    with pytest.raises(InputError, match="expected at most 0M"):
        frontier(source)


def test_a_picture_of_another_kind_is_refused_before_measuring(source, tmp_path, monkeypatch):
    monkeypatch.setattr(app, "measure_source", None)
    with pytest.raises(InputError, match=r"frontier\.gif: a picture is a \.svg or \.png file"):
        frontier(source, picture=tmp_path / "frontier.gif")


def test_a_picture_that_cannot_be_written_is_refused_before_measuring(source, tmp_path, monkeypatch):
    monkeypatch.setattr(app, "measure_source", None)
    (tmp_path / "file").write_text("")
    for name in ("frontier.svg", "more/frontier.svg"):
        with pytest.raises(InputError, match="file is not a folder that can be written; choose another place"):
            frontier(source, picture=tmp_path / "file" / name)


def test_a_png_that_cannot_be_drawn_is_refused_before_measuring(source, tmp_path, monkeypatch):
    monkeypatch.setattr(app, "measure_source", None)
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(BackendError, match=r"PNG files need resvg_py.*pip install 'sprat\[report\]'"):
        frontier(source, picture=tmp_path / "frontier.png")


def test_an_unknown_file_type_is_named(tmp_path):
    with pytest.raises(BackendError, match="unknown file type of llama-quantize 'q4_m'"):
        llama_quantize(tmp_path / "a", tmp_path / "b", "q4_m", {})
