"""Exports with fewer experts: the files are those of a checkpoint whose experts were removed by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from deepseek_v3 import deepseek_v3
from pruned_by_hand import hand_pruned, write_by_hand
from tiny_checkpoint import write_checkpoint, write_tokenizer, write_weights

from sprat.errors import ExportError, InputError
from sprat.export.pipeline import export
from sprat.export.pruning.contributions import expert_contributions
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.texts import evaluation_text
from sprat.export.verify.verify import verify
from sprat.progress import no_progress
from sprat.runtime.engine import Engine
from sprat.runtime.files.gguf import GGUFFile

TOKENS = np.random.default_rng(5).integers(4, 400, 48).tolist()
SMALL = {"num_hidden_layers": 3}


@pytest.fixture(autouse=True)
def short_evaluation(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("sprat.export.calibration.evaluation_text", lambda: evaluation_text()[:1500])


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("If there are 12 apples and 5 are eaten, 7 apples are left. " * 40)
    return [file]


@pytest.fixture
def source(tmp_path):
    return write_checkpoint(tmp_path / "source", **SMALL)


def file_of(result):
    return result.bundle.artifact("gguf")


def experts_of(result):
    return {int(layer): ids for layer, ids in result.bundle.manifest.pruning.experts.items()}


def logits(path, backend="native", **options):
    with Engine.load(path, backend=backend, context=64, **options) as engine:
        stream = engine.backend.new_stream(64)
        found = np.array(stream.forward_all(TOKENS))
        stream.close()
        return found


def same_tensors(one, other):
    a, b = GGUFFile.open(one), GGUFFile.open(other)
    assert list(a.names()) == list(b.names())
    return all(np.array_equal(a.weight(name).packed, b.weight(name).packed) for name in a.names())


@pytest.mark.parametrize("quant", ["f32", "int4"])
def test_the_file_is_that_of_experts_removed_by_hand(source, tmp_path, text, quant):
    pruned = export(source, tmp_path / "pruned", quant=quant, quality="none", prune_experts=0.25, calibration=text)
    experts = experts_of(pruned)
    assert {len(ids) for ids in experts.values()} == {6}
    assert list(experts) == [1, 2]
    hand = write_by_hand(tmp_path / "hand", experts, **SMALL)
    by_hand = export(hand, tmp_path / "by-hand", quant=quant, quality="none")
    assert same_tensors(file_of(pruned), file_of(by_hand))
    assert np.array_equal(logits(pruned.path), logits(by_hand.path))
    exact = logits(by_hand.path, "reference")
    assert np.abs(logits(pruned.path, exact=True, cache="f32") - exact).max() < 1e-3 * np.abs(exact).max()


def test_experts_that_add_least_are_removed(source, tmp_path, text):
    """The definition, token by token: router weight times the norm of the expert's output."""
    checkpoint = Checkpoint.open(source)
    sequences = [np.asarray(TOKENS[:12], np.int32)]
    found = expert_contributions(checkpoint, sequences, no_progress)
    moe, expected = checkpoint.spec.moe, np.zeros(8)
    layers = _states_before_experts(checkpoint, sequences)
    router, gate, up, down = (
        checkpoint.weight(f"blk.1.{name}.weight").dequantize().astype(np.float64)
        for name in ("ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
    )
    for x in layers.astype(np.float64):
        scores = np.exp(router @ x)
        scores /= scores.sum()
        for expert in np.argsort(-scores)[: moe.n_experts_per_token]:
            hidden = gate[expert] @ x
            output = down[expert] @ (hidden / (1 + np.exp(-hidden)) * (up[expert] @ x))
            expected[expert] += scores[expert] * np.linalg.norm(output)
    assert np.allclose(found[1], expected, rtol=1e-4)


def _states_before_experts(checkpoint, sequences):
    """Normed inputs of the MoE in layer 1, ``(n, hidden)``."""
    from sprat.export.quality.measuring.layer_pass import LayerPass
    from sprat.runtime.kernels import ReferenceKernels

    kernels, layers = ReferenceKernels(), LayerPass(checkpoint.spec, checkpoint, sequences)
    x = layers.embed(kernels)
    layers.run(layers.block(0), x, kernels)
    layers.attend(layers.block(1), x, kernels)
    gain = checkpoint.weight("blk.1.ffn_norm.weight").dequantize()
    return kernels.rms_norm(x, gain, checkpoint.spec.rms_norm_eps)


def test_biases_and_groups_of_v3(tmp_path, text):
    config, shapes = deepseek_v3()
    config["n_group"], config["topk_group"], config["num_nextn_predict_layers"] = 2, 1, 0
    rng = np.random.default_rng(3)
    weights = {name: rng.standard_normal(shape) / np.sqrt(shape[-1]) for name, shape in shapes.items()}
    paths = [tmp_path / "source", tmp_path / "hand"]
    _write(paths[0], config, weights)
    pruned = export(paths[0], tmp_path / "pruned", quant="f32", quality="none", prune_experts=0.25, calibration=text)
    experts = experts_of(pruned)
    assert all(sum(expert < 4 for expert in ids) == 3 for ids in experts.values())
    _write(paths[1], config | {"n_routed_experts": 6}, hand_pruned(weights, experts))
    assert same_tensors(file_of(pruned), file_of(export(paths[1], tmp_path / "by-hand", quant="f32")))


def _write(folder, config, weights):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder / "model.safetensors", weights)
    write_tokenizer(folder, "deepseek2", config["vocab_size"])


def test_a_gguf_is_pruned_as_its_checkpoint(source, tmp_path, text):
    whole = export(source, tmp_path / "whole", quant="bf16")
    options = {"quality": "none", "prune_experts": 0.5, "calibration": text}
    one, two = (
        export(origin, tmp_path / name, quant="bf16", **options)
        for origin, name in ((source, "one"), (file_of(whole), "two"))
    )
    assert experts_of(one) == experts_of(two)
    assert same_tensors(file_of(one), file_of(two))
    kept = export(file_of(whole), tmp_path / "kept", quant="keep", **options)
    assert all("-4x" in file_of(result).name for result in (one, two, kept))
    assert same_tensors(file_of(one), file_of(kept))


def test_the_manifest_says_what_it_costs(source, tmp_path, text, capsys):
    result = export(source, tmp_path / "out", prune_experts=0.25, quality="none", quant="f32", calibration=text)
    report = result.bundle.manifest.pruning
    assert report.n_experts == 8
    assert 0 < report.kld_error < report.kld
    assert 0 < report.same_top < 1
    assert report.n_weights_before - report.n_weights == 2 * 2 * (3 * 64 * 32 + 64)
    assert 0.75 < report.contribution < 1
    _, out, _ = run(capsys, "inspect", str(result.path))
    assert "6 of 8 experts per layer kept" in out
    assert "cost of pruning, before quantization: KLD" in out


def test_verify_finds_the_divergence_of_the_report_and_compares_the_same_experts(source, tmp_path, text):
    result = export(source, tmp_path / "out", prune_experts=0.25, quality="none", quant="f32", calibration=text)
    found = verify(result.path, source, backends=["reference"], max_tokens=200)
    assert 0.4 * result.bundle.manifest.pruning.kld < found.quality["reference"].mean_kld
    experts = experts_of(result)
    assert set(found.routing) == set(experts)
    assert all(0.6 < overlap < 1 for overlap in found.routing.values())  # what remains of the source's choices
    alone = file_of(result).rename(tmp_path / "alone.gguf")
    assert verify(alone, source, backends=["reference"], max_tokens=64).routing == {}


def test_the_same_command_does_nothing_and_another_is_refused(source, tmp_path, text):
    out = tmp_path / "out"
    options = {"quality": "none", "calibration": text}
    first = export(source, out, prune_experts=0.25, **options)
    again = export(source, out, prune_experts=0.25, **options)
    assert "up to date" in again.notes[-1]
    assert again.bundle.manifest == first.bundle.manifest
    other = tmp_path / "other.txt"
    other.write_text("A device that thinks at the edge needs no cloud; it needs patience. " * 40)
    for changed in ({"calibration": [other]}, {"prune_experts": 0.5}, {"prune_experts": None, "calibration": ()}):
        with pytest.raises(ExportError, match="another bundle"):
            export(source, out, **({"prune_experts": 0.25} | options | changed))


@pytest.mark.parametrize("quality", ["fast", "balanced"])
def test_a_pruned_model_is_calibrated_as_any(source, tmp_path, text, quality):
    result = export(source, tmp_path / "out", quality=quality, quant="q4_0", prune_experts=0.25, calibration=text)
    manifest = result.bundle.manifest
    assert manifest.quality.level == quality
    assert GGUFFile.open(file_of(result)).weight("blk.1.ffn_up_exps.weight").shape[0] == 6
    again = export(source, result.path, quality=quality, quant="q4_0", prune_experts=0.25, calibration=text)
    assert "up to date" in again.notes[-1]


def test_a_dense_model_is_an_error_of_the_user(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "dense", "llama", num_hidden_layers=1)
    code, _, err = run(capsys, "export", str(source), str(tmp_path / "out"), "--prune-experts", "0.25")
    assert code == 2
    assert "has no routed experts" in err
    with pytest.raises(InputError, match="no routed experts"):
        export(source, tmp_path / "out", prune_experts=0.25)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("quant", ["f32", "int4"])
def test_onnxruntime_computes_what_the_gguf_does(source, tmp_path, text, quant):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx_ir")
    options = {"quality": "none", "prune_experts": 0.25, "calibration": text, "quant": quant}
    result = export(source, tmp_path / "out", formats=["gguf", "onnx"], accuracy_level=0, **options)
    expected = logits(file_of(result), "reference")
    assert np.abs(logits(Path(result.bundle.artifact("onnx")), "onnx") - expected).max() < 2e-3 * np.abs(expected).max()


@pytest.mark.slow
def test_llamacpp_computes_what_sprat_does(source, tmp_path, text):
    pytest.importorskip("llama_cpp")
    options = {"quality": "none", "prune_experts": 0.25, "calibration": text, "quant": "f32"}
    path = file_of(export(source, tmp_path / "out", **options))
    expected = logits(path, "reference")
    assert np.abs(logits(path, "llamacpp") - expected).max() < 0.02 * np.abs(expected).max()  # its cache is float16


@pytest.mark.slow
def test_transformers_computes_the_same_without_these_experts(source, tmp_path, text):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    options = {"quality": "none", "prune_experts": 0.25, "calibration": text, "quant": "f32"}
    pruned = export(source, tmp_path / "out", **options)
    folder = write_by_hand(tmp_path / "hand", experts_of(pruned), **SMALL)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS])).logits[0].numpy()
    assert np.abs(logits(pruned.path, "reference") - expected).max() < 1e-3 * np.abs(expected).max()
