import json
import shlex
from pathlib import Path

import pytest
from command_line import run
from quick_probe import RATES, shorten_probe


@pytest.fixture(autouse=True)
def short(monkeypatch, tmp_path):
    """A probe that takes milliseconds, and a temporary config folder."""
    monkeypatch.setattr("sprat.runtime.kernels.rates.measure_rates", lambda _n_threads: RATES)
    shorten_probe(monkeypatch, tmp_path / "config")


def test_a_saved_probe_can_be_listed_shown_and_planned_for(capsys, tmp_path):
    code, out, err = run(capsys, "devices", "probe", "--save", "my-board", "--folder", str(tmp_path))
    assert code == 0
    assert out.startswith("measured: ")
    assert "pretended kernels, int4 GEMM, 512 tokens" in out
    assert "200 GOP/s" in out
    assert "8.0 MiB" in out
    assert "measuring storage" in err
    assert "| my-board" in run(capsys, "devices")[1]
    assert "sprat devices probe, " in run(capsys, "devices", "show", "my-board")[1]
    assert "fits on my-board" in run(capsys, "plan", "demo", "--device", "my-board")[1]


def test_a_probe_in_json_is_one_object(capsys, tmp_path):
    _, out, _ = run(capsys, "devices", "probe", "--folder", str(tmp_path), "--json")
    found = json.loads(out)
    assert found["profile"]["name"] == "this-machine"
    assert len(found["storage"]) == 6
    assert not (tmp_path / "config").exists()


def test_an_existing_name_is_refused_before_anything_is_measured(capsys, tmp_path):
    code, out, err = run(capsys, "devices", "probe", "--save", "rpi5-8gb", "--folder", str(tmp_path))
    assert (code, out) == (2, "")
    assert "for example 'my-rpi5-8gb'" in err
    assert "measuring" not in err


def test_a_broken_user_profile_does_not_hide_other_devices(capsys, tmp_path):
    folder = tmp_path / "config" / "sprat" / "devices"
    folder.mkdir(parents=True)
    (folder / "my-board.toml").write_text('name = "my-board"\nsoc = "?"\n')
    for arguments in (("devices",), ("devices", "--json"), ("plan", "demo"), ("plan", "demo", "--all", "--json")):
        code, out, err = run(capsys, *arguments)
        assert (code, err.count("\n")) == (0, 1)
        assert err.startswith("sprat: left out: ")
        assert "my-board.toml" in err
        assert "rpi5-8gb" in out
        assert "rpi-zero-2w" in out
    for arguments in (("devices", "show", "my-board"), ("plan", "demo", "--device", "my-board")):
        code, out, err = run(capsys, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "my-board.toml" in err


def test_a_profile_from_a_file_is_planned_for_and_added(capsys, tmp_path):
    file = tmp_path / "friend's.toml"
    source = Path(__file__).parents[2] / "devices/profiles/rpi5-8gb.toml"
    file.write_text(source.read_text().replace('name = "rpi5-8gb"', 'name = "friend"'))
    code, out, _ = run(capsys, "plan", "demo", "--device", file)
    assert code == 0
    assert "fits on friend" in out
    assert f"--device {shlex.quote(str(file))}" in out
    code, out, _ = run(capsys, "devices", "add", file)
    assert (code, out.startswith("saved as ")) == (0, True)
    assert "fits on friend" in run(capsys, "plan", "demo", "--device", "friend")[1]
    assert "no such file" in run(capsys, "devices", "add", tmp_path / "other.toml")[2]
