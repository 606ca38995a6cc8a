"""The MTP layer of GLM-4.7-Flash: kept in the GGUF under llama.cpp's names, not run, and without effect on logits."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
from gguf import GGUFValueType
from golden_models import GOLDEN
from safetensors.numpy import load_file, save_file
from split_gguf import rewrite
from tiny_checkpoint import write_checkpoint
from tiny_vocabulary import write_byte_level

import sprat
from sprat.errors import SpratError
from sprat.export.pipeline import export
from sprat.export.source.checkpoint import Checkpoint
from sprat.runtime.arch.tensors import is_optional_mtp
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.models import Model

NAME, N_LAYERS, N_ROWS = "glm-4.7-flash", 3, 1280
TESTS = Path(__file__).parents[2]
OPTIONAL = ("embed_tokens.weight", "shared_head.head.weight", "shared_head.norm.weight")


def golden_tensors():
    """The golden weights in float32; safetensors' NumPy reader knows no BF16."""
    stored = safetensors.deserialize((GOLDEN / NAME / "model.safetensors").read_bytes())
    return {
        name: (np.frombuffer(entry["data"], np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
        if entry["dtype"] == "BF16"
        else np.frombuffer(entry["data"], np.float32).reshape(entry["shape"])
        for name, entry in stored
        if not name.startswith(f"model.layers.{N_LAYERS}.")  # a few names of an MTP layer
    }


def write_golden(folder, *, declared, added=None):
    """The golden checkpoint with a tokenizer, whose tokens have rows of zeros after those of the golden vocabulary."""
    write_byte_level(folder, "deepseek-v3")
    config = json.loads((GOLDEN / NAME / "config.json").read_text()) | {"vocab_size": N_ROWS}
    config.pop("num_nextn_predict_layers", None)
    config |= {} if declared is None else {"num_nextn_predict_layers": declared}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = golden_tensors()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = np.pad(tensors[name], ((0, N_ROWS - len(tensors[name])), (0, 0)))
    for name, shape in (added(config, tensors) if added else {}).items():
        tensors[name] = np.random.default_rng(len(name)).normal(0, 0.02, shape).astype(np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def add_mtp(folder, *, optional=OPTIONAL, declared=1, changed=None):
    """The golden checkpoint with an MTP layer of random weights, as zai-org publishes it; and the layer's number."""

    def added(config, tensors):
        hidden, vocabulary = config["hidden_size"], config["vocab_size"]
        last = f"model.layers.{N_LAYERS - 1}."
        shapes = {name.removeprefix(last): array.shape for name, array in tensors.items() if name.startswith(last)}
        shapes |= {"eh_proj.weight": (hidden, 2 * hidden), "enorm.weight": (hidden,), "hnorm.weight": (hidden,)}
        own = {"embed_tokens.weight": (vocabulary, hidden), "shared_head.head.weight": (vocabulary, hidden)}
        own |= {"shared_head.norm.weight": (hidden,)}
        shapes |= {name: shape for name, shape in own.items() if name in optional} | (changed or {})
        return {f"model.layers.{N_LAYERS}.{name}": shape for name, shape in shapes.items()}

    return write_golden(folder, declared=declared, added=added), N_LAYERS


def logits_of(weights, spec):
    model = Model(spec, weights, ReferenceKernels())
    tokens = load_file(GOLDEN / NAME / "expected.safetensors")["tokens"]
    return model.forward(tokens, model.new_cache(len(tokens)), all_logits=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder, layer = add_mtp(tmp_path_factory.mktemp("mtp") / "glm")
    result = sprat.export(folder, folder.parent / "out", quant="f32")
    return folder, layer, result


def test_the_layer_has_llamacpps_names_and_keys(exported):
    folder, layer, result = exported
    source = load_file(folder / "model.safetensors")
    with GGUFFile.open(result.bundle.artifact()) as file:
        assert file.metadata["deepseek2.block_count"] == layer + 1
        assert file.metadata["deepseek2.nextn_predict_layers"] == 1
        found = {name for name in file.tensors if name.startswith(f"blk.{layer}.")}
        last = {name for name in file.tensors if name.startswith(f"blk.{layer - 1}.")}
        own = ("eh_proj", "enorm", "hnorm", "embed_tokens", "shared_head_head", "shared_head_norm")
        assert found == {name.replace(f".{layer - 1}.", f".{layer}.") for name in last} | {
            f"blk.{layer}.nextn.{name}.weight" for name in own
        }
        for name, other in (("nextn.eh_proj", "eh_proj"), ("nextn.shared_head_head", "shared_head.head")):
            weight = file.weight(f"blk.{layer}.{name}.weight").dequantize()
            np.testing.assert_array_equal(weight, source[f"model.layers.{layer}.{other}.weight"])
    assert any("kept in the GGUF" in note for note in result.bundle.manifest.warnings)


def test_the_logits_are_those_without_the_layer(exported):
    folder, _, result = exported
    expected = load_file(GOLDEN / NAME / "expected.safetensors")["logits"]
    checkpoint = Checkpoint.open(folder)
    with sprat.Engine.load(result.bundle.path, exact=True) as engine:
        tokens = load_file(GOLDEN / NAME / "expected.safetensors")["tokens"]
        stream = engine.backend.new_stream(len(tokens))
        last = stream.forward(tokens.tolist())
        stream.close()
    assert np.abs(logits_of(checkpoint, checkpoint.spec)[:, :160] - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.abs(np.ravel(last)[:160] - expected[-1]).max() <= 1e-2 * np.abs(expected).max()


@pytest.mark.slow
def test_llamacpp_loads_the_file_with_equal_logits(exported, tmp_path):
    pytest.importorskip("llama_cpp")
    expected = load_file(GOLDEN / NAME / "expected.safetensors")
    np.save(tmp_path / "tokens.npy", expected["tokens"])
    program, model = TESTS / "support" / "llamacpp_logits.py", exported[2].bundle.artifact()
    files = [str(path) for path in (model, tmp_path / "tokens.npy", tmp_path / "logits.npy")]
    subprocess.run([sys.executable, program, *files], check=True)
    logits = np.load(tmp_path / "logits.npy")
    assert np.abs(logits[:, :160] - expected["logits"]).max() <= 1e-4 * np.abs(expected["logits"]).max()


def test_a_copy_of_the_gguf_keeps_the_layer(exported, tmp_path):
    _, layer, result = exported
    model = result.bundle.artifact()
    copies = [
        sprat.export(model, tmp_path / "export", quant="q8_0").bundle.artifact(),
        sprat.export(model, tmp_path / "keep", quant="keep").bundle.artifact(),
        sprat.quantize(model, tmp_path / "quantized.gguf", quant="q8_0").file.path,
    ]
    with GGUFFile.open(model) as file:
        names = list(file.tensors)
    for copy in copies:
        with GGUFFile.open(copy) as file:
            assert set(file.tensors) == set(names)
            assert file.metadata["deepseek2.nextn_predict_layers"] == 1
            assert file.metadata["deepseek2.block_count"] == layer + 1


def test_what_runs_does_not_count_the_layer(exported):
    folder, _, result = exported
    plain = sprat.export(write_golden(folder.parent / "golden", declared=1), folder.parent / "plain", quant="f32")
    plans = [
        sprat.plan(bundle, devices=["rpi5-8gb"])[0].footprint for bundle in (plain.bundle.path, result.bundle.path)
    ]
    assert plans[0] == plans[1]
    assert sprat.inspect(result.bundle.path).n_layers == sprat.inspect(plain.bundle.path).n_layers
    assert [
        note
        for note in sprat.inspect(result.bundle.artifact()).notes
        if note == "MTP layers in the file, which sprat does not run: 1"
    ]
    assert not [note for note in sprat.inspect(plain.bundle.artifact()).notes if "MTP" in note]


def test_an_onnx_model_is_that_without_the_layer(exported, tmp_path):
    sources = (exported[0], write_golden(tmp_path / "golden", declared=1))
    models = [sprat.export(source, tmp_path / f"out-{source.name}", formats=["onnx"]) for source in sources]
    one, other = ((model.bundle.path / "model.onnx.data").read_bytes() for model in models)
    assert one == other


@pytest.mark.parametrize(
    ("options", "n_kept"),
    [
        ({"optional": ()}, 1),
        ({"optional": OPTIONAL[2:]}, 1),
        ({"declared": None}, 0),
        ({"declared": 0}, 0),
        ({"changed": {"eh_proj.weight": (3, 5)}}, 0),
        ({"changed": {"unknown.weight": (3, 5)}}, 0),
    ],
)
def test_a_layer_that_is_not_whole_is_left_out_with_a_note(tmp_path, options, n_kept):
    folder, layer = add_mtp(tmp_path / "glm", **options)
    checkpoint = Checkpoint.open(folder)
    kept = [name for name in checkpoint.names() if name.startswith(f"blk.{layer}.")]
    assert checkpoint.spec.n_mtp_layers == n_kept == bool(kept)
    assert not checkpoint.problems()
    assert [note for note in checkpoint.warnings if "multi-token prediction" in note]
    assert len([name for name in kept if is_optional_mtp(name)]) == (len(options.get("optional", ())) if kept else 0)


def test_a_config_that_declares_a_layer_without_weights_has_none(tmp_path):
    result = export(write_golden(tmp_path / "glm", declared=1), tmp_path / "out")
    with GGUFFile.open(result.bundle.artifact()) as file:
        assert "deepseek2.nextn_predict_layers" not in file.metadata
        assert file.metadata["deepseek2.block_count"] == N_LAYERS
    assert not [note for note in result.bundle.manifest.warnings if "multi-token" in note]


def test_a_layer_that_the_keys_do_not_count_is_no_mtp(tmp_path):
    """llama.cpp refuses such a GGUF ("wrong number of tensors"); without the layer it would be another model."""
    whole = export(write_checkpoint(tmp_path / "qwen", "qwen2"), tmp_path / "out", quant="f16").bundle.artifact()
    path = rewrite(whole, tmp_path / "short.gguf", {"qwen2.block_count": ([GGUFValueType.UINT32], 3)})
    for use in (sprat.Engine.load, lambda path: sprat.export(path, tmp_path / "again")):
        with pytest.raises(SpratError, match=r"1[0-9] unexpected: 'blk\.3\.attn_norm\.weight'"):
            use(path)
