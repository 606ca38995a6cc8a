"""Dense models in onnxruntime-genai: it loads the exported folder and generates the same tokens as sprat."""

import os

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

from sprat.export.pipeline import export
from sprat.runtime.engine import Engine

pytestmark = pytest.mark.slow

PROMPT = [0, *(int(token) for token in np.random.default_rng(3).integers(2, 512, 24))]
N_TOKENS = 40


@pytest.fixture(scope="module")
def genai():
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    return pytest.importorskip("onnxruntime_genai")


def generated_by_genai(genai, folder):
    model = genai.Model(str(folder))
    params = genai.GeneratorParams(model)
    params.set_search_options(max_length=len(PROMPT) + N_TOKENS, min_length=len(PROMPT) + N_TOKENS, do_sample=False)
    generator = genai.Generator(model, params)
    generator.append_tokens(np.array(PROMPT, np.int32))
    logits = np.array(generator.get_output("logits"))[0, -1]
    tokens = []
    while not generator.is_done():
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    return logits, tokens


@pytest.mark.parametrize("quant", ["int4", "int8", "f32"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_genai_generates_what_sprat_generates(genai, architecture, quant, tmp_path):
    source = write_checkpoint(tmp_path / "tiny", architecture)
    bundle = export(source, tmp_path / "out", quant=quant, formats=["onnx"]).bundle
    logits, tokens = generated_by_genai(genai, bundle.path)
    with Engine.load(bundle.path) as engine:
        stream = engine.backend.new_stream(len(PROMPT) + N_TOKENS)
        ours = stream.forward(PROMPT)
        np.testing.assert_allclose(logits, ours, atol=1e-4)
        for token in tokens:
            assert ours[token] >= ours.max() - 1e-3  # the same token, or a tie within rounding
            ours = stream.forward([token])
    assert len(tokens) == N_TOKENS
