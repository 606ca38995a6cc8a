"""Native logits against llama.cpp's on the same file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from native_kernels import kernels_of, needs_native

from sprat import demo
from sprat.export.pipeline import export
from sprat.runtime.arch.gguf_keys import spec_from_metadata
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.models import Model
from sprat.runtime.tokenizer.tokenizer import Tokenizer

pytestmark = [pytest.mark.slow, needs_native]
SCRIPT = Path(__file__).parents[2] / "support" / "llamacpp_logits.py"
TEXT = (
    "The river rises in the mountains, where snow lies until June. It passes three towns and a forest of old oaks "
    "before it reaches the plain. In spring its water is brown and fast; in autumn a child can wade through it. People "
    "have built mills along its banks for six hundred years, and two of them still grind flour today."
)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """The packaged student in int8."""
    return export(demo.path(), tmp_path_factory.mktemp("student") / "int8", quant="int8").bundle.artifact()


def mean_kld(base, other):
    """Mean Kullback-Leibler divergence of next-token distributions, in nats."""
    log_p, log_q = (x - np.logaddexp.reduce(x.astype(np.float64), axis=-1, keepdims=True) for x in (base, other))
    return float((np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean())


def logits_of(path, folder):
    """Logits of the reference, the native kernels and llama.cpp."""
    pytest.importorskip("llama_cpp")
    with GGUFFile.open(path) as file:
        spec = spec_from_metadata(file.metadata, file)
        tokens = np.array(Tokenizer.from_gguf(file.metadata).encode(TEXT)[:100])
        ours = []
        for kernels, storage in ((ReferenceKernels(), "f32"), (kernels_of(""), "f16")):
            model = Model(spec, file, kernels)
            ours.append(model.forward(tokens, model.new_cache(len(tokens), storage), all_logits=True))
    np.save(folder / "tokens.npy", tokens)
    command = [sys.executable, SCRIPT, path, folder / "tokens.npy", folder / "logits.npy"]
    subprocess.run([str(part) for part in command], check=True)
    return (*ours, np.load(folder / "logits.npy"))


def compare(reference, native, llamacpp):
    """Both quantize activations to int8, differently: they differ from each other as much as from the exact logits."""
    ours, theirs = mean_kld(reference, native), mean_kld(reference, llamacpp)
    assert ours < 1.6 * theirs
    assert mean_kld(llamacpp, native) < ours + theirs


def test_smollm2(smollm2_gguf, tmp_path):
    """Measured mean KLD in nats: native 0.0029, llama.cpp 0.0032, between them 0.0041."""
    compare(*logits_of(smollm2_gguf, tmp_path))


def test_the_packaged_student(student, tmp_path):
    """Measured mean KLD in nats: native 0.0010, llama.cpp 0.0008, between them 0.0013."""
    compare(*logits_of(student, tmp_path))
