"""Unmodified llama.cpp loads what sprat writes and computes the same logits."""

import llamacpp_divergence
import numpy as np
import pytest
from tiny_checkpoint import CONFIGS, write_checkpoint

from sprat.export.gguf.quantize import quantize
from sprat.export.pipeline import export
from sprat.runtime.engine import Engine

pytestmark = pytest.mark.slow

TOKENS = np.random.default_rng(5).integers(4, 400, 48).tolist()


def logits(path, backend):
    """Logits after each of ``TOKENS``."""
    with Engine.load(path, backend=backend, context=64) as engine:
        stream = engine.backend.new_stream(64)
        try:
            return np.array(stream.forward_all(TOKENS))
        finally:
            stream.close()


def divergence(path, *, may_reroute=False):
    """Mean KL divergence of llama.cpp from our reference on the same file."""
    base, found = logits(path, "reference"), logits(path, "llamacpp")
    return llamacpp_divergence.divergence(base, found, TOKENS, may_reroute=may_reroute)


# llama.cpp has an f16 cache, and quantizes activations to int8 for products with quantized weights.
@pytest.mark.parametrize(("quant", "max_kld"), [("f32", 1e-5), ("f16", 5e-4), ("int8", 2e-3), ("int4", 2e-3)])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_llamacpp_computes_what_the_reference_computes(tmp_path, architecture, quant, max_kld):
    pytest.importorskip("llama_cpp")
    source = write_checkpoint(tmp_path / "source", architecture)
    path = export(source, tmp_path / "out", quant=quant).path
    assert 0 <= divergence(path, may_reroute=architecture == "deepseek2" and quant == "f32") < max_kld


@pytest.mark.parametrize("quant", ["q4_1", "q5_0", "q5_1", "iq4_nl", "q8_0", "mxfp4", "mxfp4_moe"])
def test_llamacpp_loads_every_format_that_quantize_writes(tmp_path, quant):
    pytest.importorskip("llama_cpp")
    source = write_checkpoint(tmp_path / "source")
    half = export(source, tmp_path / "out", quant="f16").bundle.artifact()
    assert 0 <= divergence(quantize(half, tmp_path / "out.gguf", quant=quant).file.path) < 2e-3


@pytest.mark.parametrize(
    "quant",
    ["q4_k", "q5_k", "q6_k", "q4_k_m", "q3_k", "q3_k_m", "q2_k", "iq4_xs", "q2_0", "nvfp4"],
)
def test_llamacpp_loads_k_quants_of_rows_of_256(tmp_path, quant):
    pytest.importorskip("llama_cpp")
    source = write_checkpoint(tmp_path / "source", "llama", hidden_size=256, intermediate_size=256)
    result = export(source, tmp_path / "out", quant=quant)
    assert result.fallbacks == ()
    assert 0 <= divergence(result.path) < 2e-3


def test_page_aligned_tensors_load(tmp_path):
    pytest.importorskip("llama_cpp")
    source = write_checkpoint(tmp_path / "source", "qwen2")
    assert 0 <= divergence(export(source, tmp_path / "out", quant="f16", align=4096).path) < 1e-5


@pytest.mark.parametrize("architecture", ["qwen2", "deepseek2"])
def test_llamacpp_reads_a_calibrated_export(tmp_path, architecture, monkeypatch):
    pytest.importorskip("llama_cpp")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("If there are 12 apples and 5 are eaten, 7 apples are left. " * 20)
    source = write_checkpoint(tmp_path / "source", architecture, num_hidden_layers=2)
    result = export(source, tmp_path / "out", quality="best", quant="q4_0", calibration=[tmp_path / "text.txt"])
    assert len({group.format for group in result.groups}) > 2
    assert divergence(result.bundle.artifact("gguf")) < 2e-3
