"""The planned memory besides weights and cache, against the peak of a child process that runs the model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from native_kernels import needs_native
from vocabulary_gguf import write_vocabulary

from sprat.export.gguf.random_weights import write_preset
from sprat.export.pipeline import export
from sprat.runtime.arch.presets import preset_spec
from sprat.runtime.backends.registry import BackendChoice, LoadRequest, chosen_footprint
from sprat.runtime.memory.buffers import activation_bytes, native_buffer_bytes, program_bytes
from sprat.runtime.open_model import open_model

TOLERANCE = 0.15

CHILD = """
import json, re, sys
import numpy as np
from sprat.runtime.backends.registry import BackendChoice, LoadRequest, chosen_footprint, open_backend
from sprat.runtime.engine import Engine
from sprat.runtime.open_model import open_model

path, backend, batch, n_threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), 2
n_prompt = 2 * batch
model = open_model(path, backend)
request = dict(file=model.file, spec=model.spec, context=n_prompt + 8, n_threads=n_threads, batch=batch)
choice = BackendChoice(backend)
footprint = chosen_footprint(choice, LoadRequest(**request))
loaded = open_backend(choice, LoadRequest(**request, memory_bytes=footprint.total_bytes))
tokenizer = model.tokenizer() if "with tokenizer" in sys.argv else None
stream = loaded.new_stream(n_prompt + 8)
tokens = np.random.default_rng(0).integers(0, model.spec.vocab_size, n_prompt + 8).tolist()
for at in range(0, n_prompt, batch):
    stream.forward(tokens[at : at + batch])
for token in tokens[n_prompt:]:
    stream.forward([token])
peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
mapped, inside = 0, False
for line in open("/proc/self/smaps"):
    if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
        inside = path in line
    elif inside and line.startswith("Rss:"):
        mapped += 1024 * int(line.split()[1])
weights = mapped if backend != "onnx" else footprint.weight_bytes  # onnxruntime copies them
print(json.dumps({"measured": peak - weights - footprint.cache_bytes, "planned": footprint.buffer_bytes}))
"""


def planned_and_measured(path, backend, batch, *arguments):
    command = [sys.executable, "-c", CHILD, str(path), backend, str(batch), *arguments]
    # Measuring coverage takes 11 MB in the child.
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(command, env=unmeasured, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def expect_close(found):
    assert found["planned"] == pytest.approx(found["measured"], rel=TOLERANCE), {
        name: f"{value / 2**20:.1f} MiB" for name, value in found.items()
    }


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """Name -> a file of a few layers of a published shape, written once."""
    folder, written = tmp_path_factory.mktemp("shapes"), {}

    def write(name, layers):
        if name not in written:
            written[name] = folder / f"{name}.gguf"
            write_preset(written[name], name, "Q4_0", layers=layers)
        return written[name]

    return write


@pytest.mark.slow
@needs_native
@pytest.mark.parametrize("batch", [32, 256])
def test_the_native_backend_with_an_moe(v2_lite_gguf, batch):
    expect_close(planned_and_measured(v2_lite_gguf, "native", batch))


@pytest.mark.slow
@needs_native
@pytest.mark.parametrize("batch", [32, 256, 512])
@pytest.mark.parametrize(("name", "layers"), [("r1-distill-qwen-1.5b", 3), ("smollm2-135m", 6), ("qwen3-8b", 1)])
def test_the_native_backend_with_dense_shapes(preset, name, layers, batch):
    expect_close(planned_and_measured(preset(name, layers), "native", batch))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["reference", "llamacpp"])
@pytest.mark.parametrize(("name", "layers"), [("r1-distill-qwen-1.5b", 3), ("smollm2-135m", 6)])
def test_other_backends_with_dense_shapes(preset, name, layers, backend):
    if backend == "llamacpp":
        pytest.importorskip("llama_cpp")
    expect_close(planned_and_measured(preset(name, layers), backend, 256))


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """The packaged student, with its tokenizer, as GGUF and ONNX."""
    from sprat import demo

    pytest.importorskip("onnx_ir")
    return export(demo.path(), tmp_path_factory.mktemp("student") / "out", formats=("gguf", "onnx")).bundle


@pytest.mark.slow
@needs_native
def test_the_native_backend_with_a_tokenizer(student):
    expect_close(planned_and_measured(student.artifact("gguf"), "native", 256, "with tokenizer"))


def test_onnxruntime_with_a_tokenizer(student):
    pytest.importorskip("onnxruntime")
    expect_close(planned_and_measured(student.artifact("onnx"), "onnx", 256, "with tokenizer"))


@pytest.mark.slow
@pytest.mark.parametrize("vocab_size", [32_000, 152_000])
def test_a_tokenizer(tmp_path, vocab_size):
    """Random merges: a vocabulary of this size, and nothing else in the process."""
    code = (
        "import re, sys\n"
        "from sprat.runtime.engine import Engine\n"
        "from sprat.runtime.files.gguf import GGUFFile\n"
        "from sprat.runtime.tokenizer.tokenizer import Tokenizer\n"
        "kib = lambda key: int(re.search(key + r':\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = kib('VmRSS'); file = GGUFFile.open(sys.argv[1]); tokenizer = Tokenizer.from_gguf(file.metadata)\n"
        # as many texts as it takes for the library to get the whole vocabulary
        "[tokenizer.encode('The quick brown fox') for _ in range(33)]; print(1024 * (kib('VmHWM') - before))\n"
    )
    path = write_vocabulary(tmp_path / "vocabulary.gguf", byte_pairs(vocab_size))
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert program_bytes(vocab_size) - program_bytes(0) == pytest.approx(int(done.stdout), rel=2 * TOLERANCE)


def byte_pairs(n):
    """A byte-level vocabulary of ``n`` tokens whose merges are pairs of earlier tokens."""
    from scripted_model import SPECIAL, byte_tokenizer

    tokens = list(byte_tokenizer().vocabulary.tokens[:256])
    merges, seen = [], set(tokens)
    first, second = 0, 0
    while len(tokens) < n - len(SPECIAL):
        pair = tokens[first], tokens[second]
        second = (second + 1) % 4000 if second + 1 < len(tokens) else 0
        first += second == 0
        if len(pair[0] + pair[1]) <= 12 and pair[0] + pair[1] not in seen:
            seen.add(pair[0] + pair[1])
            tokens.append(pair[0] + pair[1])
            merges.append(" ".join(pair))
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*tokens, *SPECIAL],
        "tokenizer.ggml.token_type": [1] * len(tokens) + [3] * len(SPECIAL),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": n - 4,
        "tokenizer.ggml.eos_token_id": n - 3,
    }


def test_a_shorter_batch_takes_less_by_its_activations(v2_lite_gguf):
    model = open_model(v2_lite_gguf)
    request = LoadRequest(file=model.file, spec=model.spec, context=512, n_threads=2)
    footprint = chosen_footprint(BackendChoice("reference"), request)
    shorter = footprint.of_batch(32)
    assert footprint.buffer_bytes - shorter.buffer_bytes == (256 - 32) * footprint.activation_bytes > 0
    assert footprint.of_batch(256) is footprint


@pytest.mark.parametrize("name", ["deepseek-v2-lite", "deepseek-r1", "r1-distill-llama-8b"])
def test_buffers_grow_with_batch_and_threads(name):
    spec = preset_spec(name)
    assert native_buffer_bytes(spec, 512) - native_buffer_bytes(spec, 256) >= 256 * activation_bytes(spec)
    assert native_buffer_bytes(spec, 256, 8) > native_buffer_bytes(spec, 256, 1)


def test_a_file_without_a_tokenizer_takes_none(v2_lite_gguf):
    assert program_bytes(0) < program_bytes(1) < program_bytes(100_000)
    assert Path(v2_lite_gguf).exists()
