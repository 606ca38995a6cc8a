"""GGUF files as other writers make them: sprat and llama.cpp read the same model."""

import subprocess
import sys
from pathlib import Path

import gguf
import llamacpp_divergence
import numpy as np
import pytest
from old_layout import write_old_layout
from split_gguf import rewrite, split
from tiny_checkpoint import write_checkpoint

from sprat.export.gguf.quantize import quantize
from sprat.export.pipeline import export
from sprat.runtime.engine import Engine

pytestmark = pytest.mark.slow

T = gguf.GGUFValueType
LLAMACPP_LOGITS = Path(__file__).parents[2] / "support" / "llamacpp_logits.py"
TOKENS = np.random.default_rng(5).integers(4, 400, 40).tolist()


def logits(path, backend):
    """Logits after each of ``TOKENS``, unquantized activations in the native backend."""
    with Engine.load(path, backend=backend, context=64, exact=backend == "native") as engine:
        stream = engine.backend.new_stream(64)
        try:
            return np.array(stream.forward_all(TOKENS))
        finally:
            stream.close()


def divergence(path, *, may_reroute=False):
    """Mean KL divergence of llama.cpp from the native backend on the same file."""
    base, found = logits(path, "native"), logits(path, "llamacpp")
    return llamacpp_divergence.divergence(base, found, TOKENS, may_reroute=may_reroute)


@pytest.fixture(scope="module", params=["llama", "qwen2", "deepseek2"])
def whole(request, tmp_path_factory):
    pytest.importorskip("llama_cpp")
    folder = tmp_path_factory.mktemp(request.param)
    source = write_checkpoint(folder / "source", request.param)
    return export(source, folder / "out", quant="f32", align=32).bundle.artifact()


def test_a_split_file(whole, tmp_path):
    parts = split(whole, tmp_path / "parts", max_tensors=20)
    np.testing.assert_array_equal(logits(parts[1], "native"), logits(whole, "native"))
    np.testing.assert_array_equal(logits(parts[1], "llamacpp"), logits(whole, "llamacpp"))


def test_a_merged_file(whole, tmp_path):
    keys = {"split.count": ([T.UINT16], 0), "split.no": ([T.UINT16], 0), "split.tensors.count": ([T.INT32], 50)}
    merged = rewrite(whole, tmp_path / "merged.gguf", keys)
    for backend in ("native", "llamacpp"):
        np.testing.assert_array_equal(logits(merged, backend), logits(whole, backend))


def test_arrays_with_one_value_per_layer(whole, tmp_path):
    with_arrays = tmp_path / "arrays.gguf"
    name = gguf.GGUFReader(whole).fields["general.architecture"].contents()
    keys = {}
    for key in ("attention.head_count", "attention.head_count_kv", "feed_forward_length"):
        field = gguf.GGUFReader(whole).fields[f"{name}.{key}"]
        keys[f"{name}.{key}"] = ([T.ARRAY, T.UINT32], [field.contents()] * 4)
    rewrite(whole, with_arrays, keys | {f"{name}.pooling_type": ([T.UINT32], 0)})
    for backend in ("native", "llamacpp"):
        np.testing.assert_array_equal(logits(with_arrays, backend), logits(whole, backend))
    quantized = quantize(with_arrays, tmp_path / "q8.gguf", quant="q8_0").file.path
    assert divergence(quantized) < 2e-3


@pytest.mark.parametrize("split_bytes", [150_000, 300_000])
@pytest.mark.parametrize("architecture", ["qwen2", "deepseek2"])
def test_llamacpp_loads_a_split_that_sprat_wrote(tmp_path, architecture, split_bytes):
    pytest.importorskip("llama_cpp")
    source = write_checkpoint(tmp_path / "source", architecture)
    whole = export(source, tmp_path / "whole", quant="f32").path
    parts = export(source, tmp_path / "parts", quant="f32", split=split_bytes).path
    assert len(list(parts.glob("*.gguf"))) > 2
    for backend in ("native", "llamacpp"):
        np.testing.assert_array_equal(logits(parts, backend), logits(whole, backend))


def exact_logits(path, folder):
    """llama.cpp's logits with a float32 cache and without flash attention."""
    np.save(folder / "tokens.npy", np.array(TOKENS, np.int32))
    command = [sys.executable, LLAMACPP_LOGITS, path, folder / "tokens.npy", folder / "logits.npy"]
    subprocess.run(command, check=True, capture_output=True)
    return np.load(folder / "logits.npy")


def test_an_old_file_with_an_unsplit_attn_kv_b(tmp_path):
    pytest.importorskip("llama_cpp")
    source = write_checkpoint(tmp_path / "source")
    new = export(source, tmp_path / "out", quant="f32", align=32).bundle.artifact()
    old = write_old_layout(new, tmp_path / "old.gguf")
    np.testing.assert_allclose(logits(old, "reference"), exact_logits(old, tmp_path), atol=5e-5)


@pytest.mark.parametrize(("kind", "max_kld"), [("F32", 1e-4), ("Q8_0", 2e-3)])
def test_an_old_file_is_converted(tmp_path, kind, max_kld):
    pytest.importorskip("llama_cpp")
    source = write_checkpoint(tmp_path / "source")
    new = export(source, tmp_path / "f32", quant="f32", align=32).bundle.artifact()
    old = write_old_layout(new, tmp_path / "old.gguf", kind)
    assert divergence(old) < max_kld
    assert divergence(quantize(old, tmp_path / "q8.gguf", quant="q8_0").file.path) < 2e-3
    assert divergence(export(old, tmp_path / "out", quant="f32").path, may_reroute=kind == "F32") < 1e-5
