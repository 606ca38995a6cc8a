"""A shortened run of the training recipe: few texts, three steps, one problem per task, and a checkpoint at the end."""

import dataclasses
import json
import sys

import pytest

import sprat
from sprat.demo.tasks import Split, prose

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")]

N_TEXTS = 8  # of each split


@pytest.fixture
def shortened(monkeypatch, tmp_path, smollm2_gguf):
    """The recipe with two small batches of texts, every word common, short phases, and little to evaluate."""
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # compiling takes longer than three steps
    import distill
    import evaluation
    import phases
    import plain_style
    import run
    import training

    def two_batches(teacher, _n_texts):
        splits = (Split.HELD_OUT, Split.TRAIN)
        batches = (distill._equal_length_batches(teacher, prose.problems(split)) for split in splits)
        return [max(found, key=len)[:N_TEXTS] for found in batches]

    monkeypatch.setattr(run, "plan_batches", two_batches)
    monkeypatch.setattr(plain_style, "COMMON", 1)
    monkeypatch.setattr(evaluation, "_ROUTED", 1)
    short = tuple(dataclasses.replace(phase, steps=steps) for phase, steps in zip(phases.PHASES, (2, 1), strict=True))
    for module in (phases, training, run):
        monkeypatch.setattr(module, "PHASES", short)
    options = ["--folder", tmp_path / "build", "--teacher", smollm2_gguf, "--n", 1]
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, options)])
    return run.main


def test_the_recipe_ends_with_a_checkpoint_that_sprat_exports(shortened, tmp_path, monkeypatch):
    shortened()
    folder = tmp_path / "build"
    assert [line.split(",")[0] for line in (folder / "losses.csv").read_text().splitlines()] == ["0", "1", "2"]
    assert {"bf16", "int8", "int4"} <= json.loads((folder / "scores.json").read_text()).keys()
    assert "3 steps" in (folder / "checkpoint" / "README.md").read_text()
    assert (folder / "losses.png").read_bytes().startswith(b"\x89PNG")
    weights = (folder / "checkpoint" / "model.safetensors").read_bytes()
    sprat.export(folder / "checkpoint", tmp_path / "out", quant="int4")
    with sprat.load(tmp_path / "out") as engine:
        assert engine.generate("Hello", max_tokens=4, temperature=0).text() is not None

    monkeypatch.setattr("run.load_teacher", lambda _path: pytest.fail("a finished stage ran again"))
    monkeypatch.setattr("run.train", lambda *_: pytest.fail("a finished stage ran again"))
    shortened()
    assert (folder / "checkpoint" / "model.safetensors").read_bytes() == weights
