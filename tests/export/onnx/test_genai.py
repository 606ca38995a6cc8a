"""Dense models in unmodified onnxruntime-genai, against sprat's reference model."""

import json

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

genai = pytest.importorskip("onnxruntime_genai")

from sprat.export.pipeline import export  # noqa: E402
from sprat.export.source.checkpoint import Checkpoint  # noqa: E402
from sprat.runtime.kernels import ReferenceKernels  # noqa: E402
from sprat.runtime.models import Model  # noqa: E402

PROMPT = [17, 230, 41, 99, 300, 7, 8]
N_NEW = 12


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def exported(request, tmp_path_factory):
    """A checkpoint and its float32 bundle."""
    folder = tmp_path_factory.mktemp(request.param)
    source = write_checkpoint(folder / "tiny", request.param)
    return Checkpoint.open(source), export(source, folder / "out", quant="f32", formats=("onnx",)).path


def greedy(checkpoint):
    model = Model(checkpoint.spec, checkpoint, ReferenceKernels())
    cache, tokens = model.new_cache(64), list(PROMPT)
    logits = model.forward(PROMPT, cache)
    for _ in range(N_NEW):
        tokens.append(int(logits[-1].argmax()))
        logits = model.forward(tokens[-1:], cache)
    return tokens


def test_it_generates_the_reference_models_tokens(exported):
    checkpoint, folder = exported
    expected = greedy(checkpoint)
    model = genai.Model(str(folder))
    params = genai.GeneratorParams(model)
    params.set_search_options(max_length=len(expected), min_length=len(expected), do_sample=False)
    generator = genai.Generator(model, params)
    generator.append_tokens(np.array([PROMPT], np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    assert generator.get_sequence(0).tolist() == expected


def test_a_second_prompt_continues_from_the_cache(exported):
    checkpoint, folder = exported
    model = Model(checkpoint.spec, checkpoint, ReferenceKernels())
    expected = model.forward([*PROMPT, *PROMPT], model.new_cache(64))[-1]
    loaded = genai.Model(str(folder))
    params = genai.GeneratorParams(loaded)
    params.set_search_options(max_length=64)
    generator = genai.Generator(loaded, params)
    for _ in range(2):
        generator.append_tokens(np.array([PROMPT], np.int32))
    logits = generator.get_logits().reshape(-1, checkpoint.spec.vocab_size)[-1]
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("sampling", "search"),
    [
        ({"min_p": 0.05, "temperature": 0.6, "do_sample": True}, {"temperature": 0.6}),
        ({"top_k": 1_000_000, "top_p": 1.0}, {"top_k": 512, "top_p": 1.0}),
        ({"top_k": 0, "temperature": 5.0}, {"top_k": 0, "temperature": 5.0}),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"temperature": 0.0}, {"do_sample": False}),
    ],
)
def test_it_loads_and_samples_with_the_models_parameters(sampling, search, tmp_path):
    """It refuses parameters that it does not know, such as min_p, and a top_k above the vocabulary."""
    source = write_checkpoint(tmp_path / "tiny", "qwen2")
    (source / "generation_config.json").write_text(json.dumps(sampling))
    folder = export(source, tmp_path / "out", quant="int8", formats=("onnx",)).path
    written = json.loads((folder / "genai_config.json").read_text())["search"]
    assert search.items() <= written.items()
    assert written.keys() <= {*search, "max_length", "past_present_share_buffer", "do_sample"}
    model = genai.Model(str(folder))
    params = genai.GeneratorParams(model)
    params.set_search_options(max_length=32)
    generator = genai.Generator(model, params)
    generator.append_tokens(np.array([PROMPT], np.int32))
    generator.generate_next_token()
    assert len(generator.get_sequence(0)) == len(PROMPT) + 1
