"""Files with random weights: exact dimensions, bounded activations, and routing to many experts."""

from collections import Counter

import numpy as np
import pytest

from sprat.errors import InputError
from sprat.export.gguf.random_weights import cached_preset, write_preset
from sprat.runtime.arch.gguf_keys import spec_from_metadata
from sprat.runtime.arch.presets import preset_spec
from sprat.runtime.arch.tensors import ROPE_FREQS, expected_tensors
from sprat.runtime.backends.reference import ReferenceBackend
from sprat.runtime.files.gguf import GGUFFile


def open_preset(path):
    """The file and its spec, checked as the engine does."""
    file = GGUFFile.open(path)
    spec = spec_from_metadata(file.metadata, file)
    file.check(spec)
    return file, spec


def test_the_file_has_the_dimensions_of_the_preset(v2_lite_gguf):
    file, spec = open_preset(v2_lite_gguf)
    assert spec == preset_spec("deepseek-v2-lite", layers=2)
    assert {name: info.shape for name, info in file.tensors.items()} == expected_tensors(spec)
    formats = Counter(info.type_name for info in file.tensors.values())
    assert set(formats) == {"Q4_0", "F32"}
    assert file.tensors["blk.1.ffn_down_exps.weight"].nbytes == 64 * 2048 * 1408 // 32 * 18
    assert all(info.offset % 32 == 0 for info in file.tensors.values())


def test_weights_are_scaled_to_keep_activations_bounded(v2_lite_gguf):
    file, _ = open_preset(v2_lite_gguf)
    q = file.weight("blk.0.attn_q.weight").dequantize()
    assert abs(float(q.mean())) < 1e-3
    assert float(q.std()) == pytest.approx(2048**-0.5, rel=0.05)
    assert float(file.weight("blk.0.attn_norm.weight").dequantize().std()) == 0.0


def test_no_two_matrices_are_equal(v2_lite_gguf):
    """onnxruntime keeps only one of equal initializers, and a benchmark of its memory would be wrong."""
    file, _ = open_preset(v2_lite_gguf)
    names = [name for name in file.tensors if len(file.tensors[name].shape) > 1]
    starts = {file.weight(name).packed.reshape(-1)[:4096].tobytes() for name in names}
    assert len(starts) == len(names)


def test_tokens_choose_different_experts(v2_lite_gguf):
    file, spec = open_preset(v2_lite_gguf)
    chosen = Counter()
    stream = ReferenceBackend(spec, file, dense_bytes=0).new_stream(
        24, lambda _layer, experts: chosen.update(experts.ravel().tolist())
    )
    tokens = np.random.default_rng(0).integers(0, spec.vocab_size, 24).tolist()
    assert np.isfinite(stream.forward(tokens)).all()
    share = np.array(list(chosen.values())) / chosen.total()
    assert float(-(share * np.log(share)).sum()) / np.log(64) > 0.85


def test_rope_factors_are_those_of_the_model(tmp_path):
    path = tmp_path / "llama.gguf"
    write_preset(path, "r1-distill-llama-8b", "Q4_0", layers=1)
    file, spec = open_preset(path)
    factors = file.weight(ROPE_FREQS).dequantize()
    assert tuple(factors.tolist()) == spec.rope.scaling.factors
    assert (factors.min(), factors.max()) == pytest.approx((1.0, 8.0))


def test_a_recipe_mixes_formats(tmp_path):
    path = tmp_path / "smollm2.gguf"
    write_preset(path, "smollm2-135m", "int4", layers=1)
    file, _ = open_preset(path)
    assert file.tensors["token_embd.weight"].type_name == "Q8_0"  # tied: the head
    assert file.tensors["blk.0.attn_q.weight"].type_name == "Q4_0"


def test_the_cached_file_is_reused_and_a_damaged_one_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cached_preset("smollm2-135m", "q4_0", 1)
    assert path.name == "smollm2-135m-1-layers-Q4_0.gguf"
    first = path.stat()
    assert cached_preset("smollm2-135m", "Q4_0", 1) == path
    assert path.stat().st_mtime_ns == first.st_mtime_ns
    whole = path.read_bytes()
    path.write_bytes(b"GGUF" + bytes(100))
    assert cached_preset("smollm2-135m", "Q4_0", 1).read_bytes() == whole


def test_an_unknown_preset_suggests_the_nearest(tmp_path):
    with pytest.raises(InputError, match="did you mean 'deepseek-v2-lite'"):
        write_preset(tmp_path / "x.gguf", "deepseek-v2-light")
