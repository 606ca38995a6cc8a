"""End to end with a published model: load, answer, export, verify, and run the exports in llama.cpp."""

import pytest

from sprat.export.pipeline import export
from sprat.export.verify.verify import verify
from sprat.runtime.engine import Engine

pytestmark = pytest.mark.slow
pytest.importorskip("llama_cpp")

# With the default system message, the logits of the first token nearly tie (0.08 between "The" and "L"), and 8-bit
# activations are enough to change it.
QUESTION = [
    {"role": "system", "content": "Answer in English."},
    {"role": "user", "content": "What is the capital of France?"},
]
BACKENDS = ["reference", "llamacpp"]


@pytest.fixture(scope="module")
def bundles(smollm2_gguf, tmp_path_factory):
    """Quantization -> a bundle exported from the model."""
    folder = tmp_path_factory.mktemp("smollm2")
    return {quant: export(smollm2_gguf, folder / quant, quant=quant).bundle.path for quant in ("f16", "int8", "int4")}


def answer(model, backend):
    with Engine.load(model, backend=backend, context=256) as engine:
        return engine.chat(QUESTION, temperature=0, max_tokens=24)["choices"][0]


@pytest.mark.parametrize("backend", [*BACKENDS, "native"])
def test_the_model_answers_correctly_in_every_backend(smollm2_gguf, backend):
    choice = answer(smollm2_gguf, backend)
    assert choice["message"]["content"] == "The capital of France is Paris."
    assert choice["finish_reason"] == "stop"


def test_the_exports_answer_correctly_in_llama_cpp(bundles):
    assert answer(bundles["int8"], "llamacpp")["message"]["content"] == "The capital of France is Paris."
    assert answer(bundles["int4"], "llamacpp")["message"]["content"].startswith("The capital of France is Paris")


def test_a_session_reuses_its_cache(smollm2_gguf):
    with Engine.load(smollm2_gguf, backend="llamacpp", context=512) as engine, engine.session() as session:
        session.chat("My name is Ada.", temperature=0, max_tokens=16)
        second = session.stream_chat("Say hello.", temperature=0, max_tokens=4).completion()
    assert second["timings"]["cache_n"] > second["timings"]["prompt_n"] > 0


def mean_klds(bundle, source):
    verification = verify(bundle, source, backends=BACKENDS, max_tokens=64)
    return [verification.quality[name].mean_kld for name in BACKENDS]


def test_without_quantization_the_kld_is_near_zero(bundles, smollm2_gguf):
    """The only differences are float16 weights and llama.cpp's float16 cache."""
    assert max(mean_klds(bundles["f16"], smollm2_gguf)) < 1e-4


def test_the_kld_is_small_for_int8_and_larger_for_int4(bundles, smollm2_gguf):
    int8, int4 = (mean_klds(bundles[quant], smollm2_gguf) for quant in ("int8", "int4"))
    assert int8[0] < 5e-3  # quantized weights only
    assert int8[1] < 2e-2  # quantized weights and llama.cpp's 8-bit activations
    assert int8[0] < int8[1] < int4[0] < 0.5
    assert int4[1] < 0.5
