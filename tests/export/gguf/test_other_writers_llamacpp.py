"""GGUF files as other writers make them: sprat and llama.cpp read the same model."""

import gguf
import numpy as np
import pytest
from split_gguf import rewrite, split
from tiny_checkpoint import write_checkpoint

from sprat.export.gguf.quantize import quantize
from sprat.export.pipeline import export
from sprat.quant.quality import QualityMeter
from sprat.runtime.engine import Engine

pytestmark = pytest.mark.slow

T = gguf.GGUFValueType
TOKENS = np.random.default_rng(5).integers(4, 400, 40).tolist()


def logits(path, backend):
    """Logits after each of ``TOKENS``, unquantized activations in the native backend."""
    with Engine.load(path, backend=backend, context=64, exact=backend == "native") as engine:
        stream = engine.backend.new_stream(64)
        try:
            return np.array(stream.forward_all(TOKENS))
        finally:
            stream.close()


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
    meter = QualityMeter()  # llama.cpp rounds activations to int8, so logits are near and not equal
    meter.add(logits(quantized, "native")[:-1], logits(quantized, "llamacpp")[:-1], np.array(TOKENS[1:]))
    assert meter.result().mean_kld < 2e-3
