"""The same tiny models in llama.cpp, in float32, from files written by gguf-py: the metadata keys are right."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

from sprat.export.source.checkpoint import Checkpoint
from sprat.runtime.arch.gguf_keys import metadata_from_spec
from sprat.runtime.arch.moe import GroupScore
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.models import Model

TESTS = Path(__file__).parents[2]
GOLDEN = TESTS / "golden"
NAMES = sorted(path.parent.name for path in GOLDEN.glob("*/model.safetensors"))
LIMITED = {"deepseek-v2", "deepseek-v2-odd"}

pytestmark = pytest.mark.slow


def write_gguf(path, checkpoint):
    """All tensors in F32, no tokenizer."""
    writer = gguf.GGUFWriter(path, str(checkpoint.spec.architecture))
    writer.add_tokenizer_model("none")
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in metadata_from_spec(checkpoint.spec).items():
        add[type(value)](key, value)
    for name in checkpoint.names():
        writer.add_tensor(name, checkpoint.weight(name).dequantize())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llamacpp_logits(name, folder):
    """llama.cpp's logits of the golden tokens."""
    pytest.importorskip("llama_cpp")
    model, tokens, logits = (str(folder / file) for file in ("model.gguf", "tokens.npy", "logits.npy"))
    write_gguf(model, Checkpoint.open(GOLDEN / name))
    np.save(tokens, load_file(GOLDEN / name / "expected.safetensors")["tokens"])
    subprocess.run([sys.executable, TESTS / "support" / "llamacpp_logits.py", model, tokens, logits], check=True)
    return np.load(logits)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LIMITED])
def test_llamacpp_gives_the_expected_logits(name, tmp_path):
    expected = load_file(GOLDEN / name / "expected.safetensors")["logits"]
    logits = llamacpp_logits(name, tmp_path)
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", sorted(LIMITED))
def test_llamacpp_scores_groups_of_v2_by_their_best_two_experts(name, tmp_path):
    """DeepSeek's code scores a group by its best expert: llama.cpp reads the file correctly, but routes differently."""
    checkpoint = Checkpoint.open(GOLDEN / name)
    spec = replace(checkpoint.spec, moe=replace(checkpoint.spec.moe, group_score=GroupScore.TOP2_SUM))
    model = Model(spec, checkpoint, ReferenceKernels())
    tokens = load_file(GOLDEN / name / "expected.safetensors")["tokens"]
    expected = model.forward(tokens, model.new_cache(len(tokens)), all_logits=True)
    assert np.abs(llamacpp_logits(name, tmp_path) - expected).max() <= 1e-4 * np.abs(expected).max()
