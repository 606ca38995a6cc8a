"""A model that no one here made, the whole way: load, answer, export, verify, and the exports in llama.cpp."""

import pytest

from sprat.export.pipeline import export
from sprat.export.verify.verify import verify
from sprat.runtime.engine import Engine

pytestmark = pytest.mark.slow
pytest.importorskip("llama_cpp")

# The system message matters: under the model's own one, the first token is a near tie (0.08 between the logits of "The"
# and "L"), and 8-bit activations are enough to tip it.
QUESTION = [
    {"role": "system", "content": "Answer in English."},
    {"role": "user", "content": "What is the capital of France?"},
]
BACKENDS = ["reference", "llamacpp"]


@pytest.fixture(scope="module")
def bundles(smollm2_gguf, tmp_path_factory):
    """Quantization -> a bundle made from the model."""
    folder = tmp_path_factory.mktemp("smollm2")
    return {quant: export(smollm2_gguf, folder / quant, quant=quant).bundle.path for quant in ("f16", "int8", "int4")}


def answer(model, backend):
    with Engine.load(model, backend=backend, context=256) as engine:
        return engine.chat(QUESTION, temperature=0, max_tokens=24)["choices"][0]


@pytest.mark.parametrize("backend", [*BACKENDS, "native"])
def test_it_knows_the_capital_of_france(smollm2_gguf, backend):
    choice = answer(smollm2_gguf, backend)
    assert choice["message"]["content"] == "The capital of France is Paris."
    assert choice["finish_reason"] == "stop"


def test_its_exports_know_it_in_llama_cpp(bundles):
    assert answer(bundles["int8"], "llamacpp")["message"]["content"] == "The capital of France is Paris."
    assert answer(bundles["int4"], "llamacpp")["message"]["content"].startswith("The capital of France is Paris")


def test_a_conversation_keeps_its_cache(smollm2_gguf):
    with Engine.load(smollm2_gguf, backend="llamacpp", context=512) as engine, engine.session() as session:
        session.chat("My name is Ada.", temperature=0, max_tokens=16)
        second = session.stream_chat("Say hello.", temperature=0, max_tokens=4).completion()
    assert second["timings"]["cache_n"] > second["timings"]["prompt_n"] > 0


def mean_klds(bundle, source):
    found = verify(bundle, source, backends=BACKENDS, max_tokens=64)
    return [found.quality[name].mean_kld for name in BACKENDS]


def test_without_quantization_both_backends_are_the_source(bundles, smollm2_gguf):
    """Reference and llama.cpp on the same file: nothing differs but float16 weights and llama.cpp's float16 cache."""
    assert max(mean_klds(bundles["f16"], smollm2_gguf)) < 1e-4


def test_eight_bits_stay_close_and_four_bits_less_so(bundles, smollm2_gguf):
    int8, int4 = (mean_klds(bundles[quant], smollm2_gguf) for quant in ("int8", "int4"))
    assert int8[0] < 5e-3  # weights alone
    assert int8[1] < 2e-2  # and llama.cpp's 8-bit activations
    assert int8[0] < int8[1] < int4[0] < 0.5
    assert int4[1] < 0.5
