"""The llamacpp backend: the reference's logits on exported files, streams, and closing."""

import numpy as np
import pytest
from tiny_checkpoint import CONFIGS, write_checkpoint

from sprat.errors import BackendError, PromptError
from sprat.export.pipeline import export
from sprat.quant.quality import QualityMeter
from sprat.runtime.backends.llamacpp import LlamaCppBackend
from sprat.runtime.engine import Engine

pytestmark = pytest.mark.slow
pytest.importorskip("llama_cpp")

TOKENS = np.random.default_rng(0).integers(10, 500, 300).tolist()


@pytest.fixture(scope="module", params=CONFIGS)
def artifact(request, tmp_path_factory):
    """A tiny model of each architecture in F32, so that only the order of sums differs."""
    folder = tmp_path_factory.mktemp("llamacpp")
    source = write_checkpoint(folder / f"tiny-{request.param}", request.param)
    return export(source, folder / "out", quant="f32").bundle.artifact()


@pytest.fixture
def backend(artifact):
    backend = LlamaCppBackend(artifact, n_threads=1, use_extra_bufts=False)
    yield backend
    backend.close()


def test_logits_are_those_of_the_reference(artifact, backend):
    meter = QualityMeter()
    with Engine.load(artifact, backend="reference") as engine:
        base = engine.backend.new_stream(300).forward_all(TOKENS)
    meter.add(base, backend.new_stream(300).forward_all(TOKENS), np.asarray(TOKENS))
    assert meter.result().kld.value < 1e-5  # llama.cpp's cache is F16
    assert meter.result().kld_percentiles[100.0] < 1e-4


def test_chunks_and_single_tokens_give_the_same_logits(backend):
    stream = backend.new_stream(300)
    whole = stream.forward_all(TOKENS)  # more than one batch
    assert whole.shape == (300, backend.vocab_size)
    stream.truncate(0)
    np.testing.assert_allclose(stream.forward(TOKENS[:280]), whole[279], atol=2e-2)
    single = [stream.forward([token]) for token in TOKENS[280:]]
    np.testing.assert_allclose(single, whole[280:], atol=2e-2)
    assert stream.length == 300


def test_a_truncated_sequence_continues(backend):
    stream = backend.new_stream(64)
    whole = stream.forward_all(TOKENS[:50])
    stream.forward(TOKENS[100:110])
    stream.truncate(20)
    assert stream.length == 20
    np.testing.assert_allclose(stream.forward_all(TOKENS[20:50]), whole[20:], atol=2e-2)


def test_streams_are_independent(backend):
    first, second = backend.new_stream(32), backend.new_stream(32)
    alone = first.forward(TOKENS[:10])
    second.forward(TOKENS[50:70])
    first.truncate(0)
    np.testing.assert_array_equal(first.forward(TOKENS[:10]), alone)


def test_more_tokens_than_the_capacity_are_refused(backend):
    stream = backend.new_stream(20)
    stream.forward(TOKENS[:15])
    with pytest.raises(PromptError, match=r"holds 15 of 20 tokens and 6 more do not fit"):
        stream.forward(TOKENS[:6])
    stream.forward(TOKENS[:5])


def test_closing_twice_and_in_any_order_is_safe(artifact):
    backend = LlamaCppBackend(artifact, n_threads=1, use_extra_bufts=False)
    stream, dropped = backend.new_stream(16), backend.new_stream(16)
    del dropped
    backend.close()
    stream.close()
    stream.close()
    backend.close()
    for use in (lambda: stream.forward([1]), lambda: stream.truncate(0), lambda: backend.new_stream(8)):
        with pytest.raises(BackendError, match=r"closed; load the model again"):
            use()


def test_a_file_that_is_not_a_model_is_an_error_with_llama_cpps_reason(tmp_path, capfd):
    (tmp_path / "x.gguf").write_bytes(b"Look, no model")
    with pytest.raises(BackendError, match=r"x.gguf: llama.cpp cannot load this file \(.*invalid magic"):
        LlamaCppBackend(tmp_path / "x.gguf", n_threads=1, use_extra_bufts=False)
    assert capfd.readouterr() == ("", "")


def test_greedy_answers_are_those_of_the_reference(artifact, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answers = {}
    for name in ("reference", "llamacpp"):
        with Engine.load(artifact, backend=name) as engine, engine.session() as session:
            first = [piece.token_id for piece in session.generate("The dog", max_tokens=8, temperature=0)]
            second = [piece.token_id for piece in session.generate("The dog sleeps", max_tokens=8, temperature=0)]
            answers[name] = (first, second)
    assert answers["llamacpp"] == answers["reference"]
    assert capfd.readouterr() == ("", "")  # llama.cpp prints nothing
    assert len(list((tmp_path / "sprat" / "probes").iterdir())) == 1
