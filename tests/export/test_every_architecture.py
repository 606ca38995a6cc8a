"""Every architecture from a checkpoint with a tokenizer to bundles that run: GGUF, quantized GGUF and ONNX."""

import json
import math

import numpy as np
import pytest
from golden_models import MODELS, config_of
from safetensors.numpy import save_file
from tiny_checkpoint import VOCAB_SIZE, write_tokenizer

from sprat.export.pipeline import export
from sprat.export.source.tensor_map import tensor_map
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.engine import Engine


def write_source(folder, row):
    """Random float32 weights of the architecture's plain golden config."""
    config = config_of(row.golden[0]) | {"vocab_size": VOCAB_SIZE, "num_nextn_predict_layers": 0}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(7)
    sources = {
        name: origin.source_shape for origin in tensor_map(spec_from_config(config)).values() for name in origin.sources
    }
    weights = {
        name: (1 if name.endswith("norm.weight") else math.sqrt(1 / shape[-1]))
        * rng.standard_normal(shape).astype(np.float32)
        for name, shape in sources.items()
    }
    save_file(weights, folder / "model.safetensors")
    write_tokenizer(folder, "deepseek2", VOCAB_SIZE)
    return folder


def answer(path, backend):
    """A greedy answer of eight tokens."""
    with Engine.load(path, backend=backend, exact=backend == "native") as engine:
        return engine.generate("The dog", max_tokens=8, temperature=0).text()


@pytest.mark.parametrize("row", MODELS, ids=lambda row: row.architecture)
def test_it_is_exported_and_every_backend_gives_the_same_answer(row, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx_ir")
    source = write_source(tmp_path / "source", row)
    gguf, onnx = (export(source, tmp_path / kind, quant="f32", formats=[kind]).path for kind in ("gguf", "onnx"))
    expected = answer(gguf, "reference")
    assert expected
    assert {answer(gguf, "native"), answer(onnx, "onnx")} == {expected}


@pytest.mark.parametrize("row", MODELS, ids=lambda row: row.architecture)
def test_it_is_quantized_and_runs(row, tmp_path):
    bundle = export(write_source(tmp_path / "source", row), tmp_path / "out", quant="int4", formats=["gguf"])
    assert answer(bundle.path, "native")
