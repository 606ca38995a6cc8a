"""The same tiny models in llama.cpp, in float32, from files written by gguf-py: the metadata keys are right."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from golden_models import GOLDEN, GROUPS_OF_TWO, NAMES, ONE_EPSILON
from safetensors.numpy import load_file

from sprat.export.source.checkpoint import Checkpoint
from sprat.runtime.arch.gguf_keys import metadata_from_spec
from sprat.runtime.arch.moe import GroupScore
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.models import Model

TESTS = Path(__file__).parents[2]

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


@pytest.mark.parametrize("name", [name for name in NAMES if name not in GROUPS_OF_TWO | ONE_EPSILON])
def test_llamacpp_gives_the_expected_logits(name, tmp_path):
    expected = load_file(GOLDEN / name / "expected.safetensors")["logits"]
    logits = llamacpp_logits(name, tmp_path)
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def assert_llamacpp_computes(name, changed, folder):
    """llama.cpp's logits are those of the model with the spec ``changed``."""
    checkpoint = Checkpoint.open(GOLDEN / name)
    model = Model(changed(checkpoint.spec), checkpoint, ReferenceKernels())
    tokens = load_file(GOLDEN / name / "expected.safetensors")["tokens"]
    expected = model.forward(tokens, model.new_cache(len(tokens)), all_logits=True)
    assert np.abs(llamacpp_logits(name, folder) - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", sorted(GROUPS_OF_TWO))
def test_llamacpp_limits_v2_to_the_groups_of_the_best_two(name, tmp_path):
    """DeepSeek's own code takes the groups of the best one: here llama.cpp's file is right and its routing is not."""

    def changed(spec):
        return replace(spec, moe=replace(spec.moe, group_score=GroupScore.TOP2_SUM))

    assert_llamacpp_computes(name, changed, tmp_path)


@pytest.mark.parametrize("name", sorted(ONE_EPSILON))
def test_llamacpp_has_one_epsilon_for_all_norms(name, tmp_path):
    """Published models have 1e-5 and 1e-6, a difference below the tolerance; these have 1e-2 and 1e-6."""

    def changed(spec):
        return replace(spec, attention=replace(spec.attention, norm_eps=None))

    assert_llamacpp_computes(name, changed, tmp_path)
