"""The commands that prove that a bundle is whole: inspect --check, verify, run --check, doctor."""

import json
import shutil

import pytest
from command_line import run
from tiny_checkpoint import write_checkpoint

from sprat.cli import main
from sprat.export.gguf.random_weights import write_preset


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("source") / "tiny-moe", "deepseek2")


@pytest.fixture(scope="module")
def original(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "out"
    main(["export", str(source), str(out), "--quant", "int8"])
    return out


@pytest.fixture
def bundle(original, tmp_path):
    return shutil.copytree(original, tmp_path / "bundle")


@pytest.fixture
def damaged(bundle):
    """64 bytes of one of the last tensors are others, and finite."""
    [path] = bundle.glob("*.gguf")
    data = bytearray(path.read_bytes())
    at = len(data) - 5000
    data[at : at + 64] = bytes(byte ^ 1 for byte in data[at : at + 64])
    path.write_bytes(data)
    return bundle


def test_a_whole_bundle_passes_every_command(bundle, source, capsys):
    code, out, err = run(capsys, "inspect", bundle, "--check")
    assert code == 0
    assert "every file has its hash of the manifest" in out
    assert "checked: all weights are finite" in out
    assert "checking: 100%" in err
    assert run(capsys, "run", bundle, "hi", "-n", 2, "--check", "--batch", 8)[0] == 0
    assert run(capsys, "verify", bundle, "--source", source, "--max-tokens", 64)[0] == 0
    code, out, _ = run(capsys, "doctor", bundle)
    assert code == 0
    assert "hashes             ok: all as in the manifest" in out
    assert "gguf logits        ok: finite on" in out


@pytest.mark.parametrize(
    "command", [("inspect", "--check"), ("run", "hi", "--check"), ("chat", "--check"), ("eval", "--check")]
)
def test_a_damaged_bundle_ends_every_command_that_checks(damaged, command, capsys):
    name, *rest = command
    more = ["--task", "arithmetic", "--n", 1] if name == "eval" else []
    code, out, err = run(capsys, name, damaged, *rest, *more)
    assert code == 2
    assert "differs from the manifest in tensor " in err
    assert out == ""


def test_verify_checks_before_it_compares(damaged, source, capsys):
    code, _, err = run(capsys, "verify", damaged, "--source", source)
    assert code == 2
    assert "differs from the manifest in tensor " in err


def test_doctor_names_what_fails_and_goes_on(damaged, capsys):
    code, out, _ = run(capsys, "doctor", damaged)
    assert code == 1
    assert "hashes             FAILED: " in out
    assert "gguf tokenizer     ok: " in out
    code, out, _ = run(capsys, "doctor", damaged, "--json")
    findings = {finding["what"]: finding["passed"] for finding in json.loads(out)["model"]}
    assert code == 1
    assert [what for what, passed in findings.items() if not passed] == ["hashes"]


def test_doctor_of_a_bundle_without_a_file(bundle, capsys):
    (bundle / "tokenizer.json").unlink()
    code, out, _ = run(capsys, "doctor", bundle)
    assert code == 1
    assert "manifest and sizes FAILED: " in out
    assert "'tokenizer.json' is missing" in out


def test_doctor_of_a_file_without_a_manifest(bundle, capsys):
    (bundle / "manifest.json").unlink()
    [path] = bundle.glob("*.gguf")
    code, out, _ = run(capsys, "doctor", path)
    assert code == 0
    assert "no manifest lists this file" in out


def test_doctor_of_a_checkpoint(source, capsys):
    code, _, err = run(capsys, "doctor", source)
    assert code == 2
    assert "expected a bundle or a model file; inspect a checkpoint" in err


def test_a_checkpoint_has_no_hashes_to_check(source, capsys):
    code, _, err = run(capsys, "run", source, "hi", "--check")
    assert code == 2
    assert "no choice of check" in err


def test_doctor_runs_a_model_without_a_tokenizer(tmp_path, capsys):
    write_preset(tmp_path / "ids.gguf", "smollm2-135m", layers=1)
    code, out, _ = run(capsys, "doctor", str(tmp_path / "ids.gguf"))
    assert code == 0
    assert "gguf tokenizer     ok: none: the model takes token ids" in out
    assert "gguf logits        ok: finite on" in out
