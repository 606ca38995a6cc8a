"""An architecture is one file: this test registers a Llama with one change, and touches nothing else.

The change is IBM Granite's: attention scores are multiplied by a value of the config instead of ``head_dim ** -0.5``.
"""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

from sprat.export.pipeline import export
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.verify.verify import verify
from sprat.runtime.arch.architecture import Architecture
from sprat.runtime.arch.attention import GroupedAttentionSpec
from sprat.runtime.arch.gguf_fields import grouped_from_gguf
from sprat.runtime.arch.hf_fields import grouped_from_config
from sprat.runtime.engine import Engine
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.models import Model

MULTIPLIER = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledAttentionSpec(GroupedAttentionSpec):
    """Grouped attention with a configured scale."""

    multiplier: float

    def scale(self, rope):
        return self.multiplier

    def gguf_keys(self):
        return {**GroupedAttentionSpec.gguf_keys(self), "attention.scale": self.multiplier}


def scaled(spec, multiplier):
    grouped = spec.attention
    return replace(
        spec,
        attention=ScaledAttentionSpec(
            n_heads=grouped.n_heads, n_kv_heads=grouped.n_kv_heads, head_dim=grouped.head_dim, multiplier=multiplier
        ),
    )


class Toy(Architecture, name="toy"):
    """Llama whose ``attention_multiplier`` replaces ``head_dim ** -0.5``."""

    has_rope_factors = True

    @property
    def config_readers(self):
        return {"ToyForCausalLM": self._from_config}

    def _from_config(self, fields):
        return scaled(grouped_from_config(fields, self.name, interleaved=True), fields.number("attention_multiplier"))

    def spec_from_gguf(self, fields, weights):
        spec = grouped_from_gguf(fields, self.name, weights, interleaved=True)
        return scaled(spec, fields.float32("attention.scale"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp("toy") / "Toy-1B", "llama")
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["ToyForCausalLM"], "model_type": "toy", "attention_multiplier": MULTIPLIER}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def logits(checkpoint, spec):
    model = Model(spec, checkpoint, ReferenceKernels())
    return model.forward([1, 5, 9, 2], model.new_cache(4))


def test_the_change_is_computed(source):
    checkpoint = Checkpoint.open(source)
    usual = checkpoint.spec.attention.head_dim**-0.5
    assert checkpoint.spec.attention.scale(checkpoint.spec.rope) == MULTIPLIER != usual
    as_llama = logits(checkpoint, scaled(checkpoint.spec, usual))
    assert np.abs(logits(checkpoint, checkpoint.spec) - as_llama).max() > 1e-3


@pytest.mark.parametrize("format_name", ["gguf", "onnx"])
def test_the_new_architecture_is_exported_run_and_verified(source, tmp_path, format_name):
    if format_name == "onnx":
        pytest.importorskip("onnxruntime")
    bundle = export(source, tmp_path / "out", quant="f32", formats=[format_name])
    backend = "reference" if format_name == "gguf" else "onnx"  # llama.cpp does not know the architecture
    found = verify(bundle.path, source, text="The quick brown fox jumps over the lazy dog. " * 8, backends=[backend])
    assert all(quality.mean_kld < 1e-4 for quality in found.quality.values())
    with Engine.load(bundle.path) as engine:
        assert engine.generate("The", max_tokens=4).text()
