"""Unsupported architectures exported by optimum-onnx, and supported dense ones exported both ways."""

import json
import shutil

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

main_export = pytest.importorskip("optimum.exporters.onnx", reason="pip install 'sprat[optimum]'").main_export
transformers = pytest.importorskip("transformers")
ort = pytest.importorskip("onnxruntime")

from sprat.errors import ExportError, InputError  # noqa: E402
from sprat.export.onnx.optimum import export_with_optimum  # noqa: E402
from sprat.export.pipeline import export  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # torch's tracer warns a lot

TOKENS = np.array([[0, *np.random.default_rng(1).integers(2, 512, 20)]], np.int64)


def logits(path):
    session = ort.InferenceSession(path)
    feeds = {"input_ids": TOKENS, "attention_mask": np.ones_like(TOKENS), "position_ids": np.arange(21)[None]}
    wanted = {value.name: value.shape for value in session.get_inputs()}
    pasts = {
        name: np.zeros((1, shape[1], 0, shape[3]), np.float32)
        for name, shape in wanted.items()
        if name.startswith("past")
    }
    return session.run(["logits"], {name: {**pasts, **feeds}[name] for name in wanted})[0]


@pytest.fixture(scope="module")
def gpt_neox(tmp_path_factory):
    """A tiny GPT-NeoX, an architecture that sprat does not support."""
    folder = tmp_path_factory.mktemp("gpt_neox") / "neox"
    tokenizer = write_checkpoint(folder.parent / "tokenizer")
    config = transformers.GPTNeoXConfig(
        vocab_size=512, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96
    )
    transformers.GPTNeoXForCausalLM(config).eval().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder)
    return folder


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_sprat_and_optimum_graphs_agree(architecture, tmp_path):
    source = write_checkpoint(tmp_path / "tiny", architecture)
    ours = export(source, tmp_path / "ours", quant="f32", formats=["onnx"]).bundle
    main_export(str(source), output=str(tmp_path / "theirs"), task="text-generation-with-past", dtype="fp32")
    np.testing.assert_allclose(logits(ours.path / "model.onnx"), logits(tmp_path / "theirs/model.onnx"), atol=1e-4)


def test_optimum_loads_and_runs_a_sprat_bundle(tmp_path):
    import torch
    from optimum.onnxruntime import ORTModelForCausalLM

    source = write_checkpoint(tmp_path / "tiny", "qwen2")
    ours = export(source, tmp_path / "ours", quant="f32", formats=["onnx"]).bundle
    shutil.copy(source / "config.json", ours.path)
    prompt = {"input_ids": torch.tensor(TOKENS), "attention_mask": torch.ones(1, 21, dtype=torch.int64)}
    models = (
        ORTModelForCausalLM.from_pretrained(ours.path),
        transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32),
    )
    found, expected = (model.generate(**prompt, max_new_tokens=8, do_sample=False).tolist() for model in models)
    assert found == expected


def test_an_unsupported_architecture_is_quantized_and_compared(gpt_neox, tmp_path):
    made = {quant: export_with_optimum(gpt_neox, tmp_path / quant, quant=quant) for quant in ("int8", "int4")}
    assert 0 < made["int8"].quality.mean_kld < made["int4"].quality.mean_kld < 0.1
    assert made["int4"].n_quantized == 9  # four in each layer, and the head
    assert json.loads((tmp_path / "int4/config.json").read_text())["model_type"] == "gpt_neox"
    assert not (tmp_path / "int4.partial").exists()
    sizes = [(tmp_path / quant / "model.onnx.data").stat().st_size for quant in ("int4", "int8")]
    assert sizes[0] < sizes[1]


def test_an_existing_folder_is_never_replaced(gpt_neox, tmp_path):
    with pytest.raises(ExportError, match="exists; choose another name"):
        export_with_optimum(gpt_neox, tmp_path)


def test_other_quantizations_are_an_error(gpt_neox, tmp_path):
    with pytest.raises(InputError, match="quantizes to int4 or int8, not to 'q4_k'"):
        export_with_optimum(gpt_neox, tmp_path / "out", quant="q4_k")
