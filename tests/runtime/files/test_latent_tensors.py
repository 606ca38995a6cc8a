"""Old DeepSeek files, in which ``attn_kv_b`` is not split, are the same models."""

import gguf
import numpy as np
import pytest
from old_layout import write_old_layout
from tiny_checkpoint import write_checkpoint

from sprat.app.plan import plan
from sprat.errors import ConfigError, ModelFileError
from sprat.export.gguf.quantize import quantize
from sprat.export.inspection import inspect
from sprat.export.pipeline import export
from sprat.export.source.checkpoint import Checkpoint
from sprat.runtime.engine import Engine
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.open_model import open_model

TOKENS = np.random.default_rng(5).integers(4, 400, 24).tolist()


def logits(path, backend="reference"):
    with Engine.load(path, backend=backend, context=64, exact=backend == "native") as engine:
        return np.array(engine.backend.new_stream(64).forward_all(TOKENS))


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new")
    return export(write_checkpoint(folder / "source"), folder / "out", quant="f32", align=32).bundle.artifact()


@pytest.fixture
def old(new, tmp_path):
    return write_old_layout(new, tmp_path / "old.gguf")


@pytest.mark.parametrize("keep_parts", [False, True])
def test_the_split_tensors_are_those_of_a_new_file(new, tmp_path, keep_parts):
    old = write_old_layout(new, tmp_path / "old.gguf", keep_parts=keep_parts)
    found, expected = open_model(old).file, open_model(new).file
    checkpoint = Checkpoint.open(old)
    checkpoint.verify_complete()
    assert found.tensors.keys() == expected.tensors.keys() == set(checkpoint.names())
    for name in expected.names():
        for source in (found, checkpoint):
            assert source.weight(name).shape == expected.weight(name).shape
            np.testing.assert_array_equal(source.weight(name).packed, expected.weight(name).packed)
    np.testing.assert_array_equal(logits(old), logits(new))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_a_quantized_old_file_runs_with_its_own_weights(new, tmp_path, kind):
    old = write_old_layout(new, tmp_path / "old.gguf", kind)
    found, checkpoint = open_model(old).file, Checkpoint.open(old)
    for part in ("attn_k_b", "attn_v_b"):
        name = f"blk.2.{part}.weight"
        held, read = found.weight(name).dequantize(), checkpoint.weight(name).dequantize()
        np.testing.assert_allclose(held, read, rtol=2**-11)
    np.testing.assert_allclose(logits(old, "native"), logits(old), atol=0.05)


def test_quantize_writes_the_new_layout(new, old, tmp_path):
    quantize(old, tmp_path / "from-old.gguf", quant="q8_0")
    quantize(new, tmp_path / "from-new.gguf", quant="q8_0")
    with GGUFFile.open(tmp_path / "from-old.gguf") as found, GGUFFile.open(tmp_path / "from-new.gguf") as expected:
        assert found.metadata.keys() == expected.metadata.keys()
        for key in ("head_count_kv", "key_length", "value_length", "key_length_mla", "value_length_mla"):
            assert found.metadata[f"deepseek2.attention.{key}"] == expected.metadata[f"deepseek2.attention.{key}"]
        assert found.tensors.keys() == expected.tensors.keys()
        for name in expected.names():
            np.testing.assert_array_equal(found.weight(name).packed, expected.weight(name).packed)


def test_export_writes_the_new_layout(old, new, tmp_path):
    out = export(old, tmp_path / "out", quant="int4").bundle.artifact()
    names = {tensor.name for tensor in gguf.GGUFReader(out).tensors}
    assert names == {tensor.name for tensor in gguf.GGUFReader(new).tensors}


def test_inspect_and_plan_read_it(old, new):
    inspection = inspect(old)
    assert all(runtime.loads for runtime in inspection.runtimes)
    assert "attn_kv_b is split in memory" in inspection.runtimes[0].why
    assert inspection.n_weights == inspect(new).n_weights
    (found,), (expected,) = (plan(path, devices=["rpi5-8gb"]) for path in (old, new))
    assert found.footprint.weight_bytes == pytest.approx(expected.footprint.weight_bytes, rel=1e-3)


def test_an_attn_kv_b_of_another_shape_is_an_error(new, tmp_path):
    old = write_old_layout(new, tmp_path / "old.gguf")
    data = old.read_bytes()
    old.write_bytes(data.replace(b"deepseek2.attention.value_length", b"deepseek2.attention.value_lengtx"))
    for read in (open_model, quantize_to(tmp_path / "out.gguf"), Checkpoint.open):
        with pytest.raises((ConfigError, ModelFileError), match="value_length"):
            read(old)


def quantize_to(out):
    return lambda source: quantize(source, out)
