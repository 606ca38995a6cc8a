"""Verification of tiny models with the NumPy reference."""

import numpy as np
import pytest
from tiny_checkpoint import CONFIGS, write_checkpoint

from sprat.errors import InputError
from sprat.export.pipeline import export
from sprat.export.texts import evaluation_text
from sprat.export.verify.source_model import load_source, open_source
from sprat.export.verify.verify import verify
from sprat.runtime.engine import Engine

TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. If there are 12 apples, 7 are left. " * 12


@pytest.fixture(scope="module", params=CONFIGS)
def source(request, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("verify") / f"tiny-{request.param}", request.param)


@pytest.fixture(scope="module")
def moe(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("verify") / "tiny-deepseek2", "deepseek2")


def test_a_lossless_artifact_has_no_divergence(source, tmp_path):
    bundle = export(source, tmp_path / "out", quant="bf16").bundle  # the checkpoint's own precision
    found = verify(bundle.path, source, text=TEXT, backends=["reference"], max_kld=1e-9)
    assert found.passed
    assert found.quality["reference"].mean_kld == pytest.approx(0, abs=1e-12)
    assert found.quality["reference"].same_top.value == 1
    assert set(found.routing.values()) <= {1.0}


def test_fewer_bits_diverge_more(moe, tmp_path):
    klds, overlaps = [], []
    for quant in ("int8", "int4"):
        bundle = export(moe, tmp_path / quant, quant=quant).bundle
        found = verify(bundle.path, moe, text=TEXT, backends=["reference"])
        klds.append(found.quality["reference"].mean_kld)
        overlaps.append(np.mean(list(found.routing.values())))
        assert found.passed  # there is no limit
    assert 0 < klds[0] < klds[1]
    assert 1 > overlaps[0] > overlaps[1] > 0.5


def test_exceeding_the_limit_fails(moe, tmp_path):
    bundle = export(moe, tmp_path / "out", quant="int4").bundle
    assert not verify(bundle.path, moe, text=TEXT, backends=["reference"], max_kld=1e-6).passed


@pytest.mark.parametrize("limit", [-1.0, float("nan")])
def test_a_limit_that_nothing_passes_is_refused_before_reading(limit):
    with pytest.raises(InputError, match=r"--max-kld .*: expected 0 or a positive number of nats"):
        verify("absent", "absent", max_kld=limit)


def test_routing_overlap_is_reported_for_every_moe_layer(moe, tmp_path):
    bundle = export(moe, tmp_path / "out", quant="int8").bundle
    found = verify(bundle.path, moe, text=TEXT, backends=["reference"])
    assert list(found.routing) == [1, 2, 3]  # layer 0 is dense
    headings = [line for line in found.text().splitlines() if line.startswith("===")]
    assert headings == [
        "====== Perplexity statistics ======",
        "====== KL divergence statistics ======",
        "====== Token probability statistics ======",
        "====== Routing overlap ======",
    ]


def test_statistics_match_a_direct_computation(moe, tmp_path):
    """One pass over each window with all logits, in float64; scores the second half like llama-perplexity."""
    bundle = export(moe, tmp_path / "out", quant="int4").bundle
    found = verify(bundle.path, moe, text=TEXT * 3, backends=["reference"])
    klds, losses = [], []
    with Engine.load(bundle.path, backend="reference") as engine:
        base = open_source(moe, dense_bytes=0)
        tokens = engine.encode(TEXT * 3)
        for start in range(0, len(tokens) - 511, 512):
            window = [engine.tokenizer.bos_id, *tokens[start + 1 : start + 512]]
            log_p, log_q = (
                log_softmax(backend.new_stream(512).forward_all(window)[256:511]) for backend in (base, engine.backend)
            )
            klds.append((np.exp(log_p) * (log_p - log_q)).sum(axis=1))
            losses.append(-log_q[np.arange(255), window[257:]])
    quality = found.quality["reference"]
    assert quality.n_tokens == 255 * len(klds)
    assert len(klds) >= 2
    assert quality.mean_kld == pytest.approx(np.mean(klds), rel=1e-3)
    assert quality.ppl.value == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_a_short_text_is_one_shorter_window(moe, tmp_path):
    bundle = export(moe, tmp_path / "out", quant="int8").bundle
    found = verify(bundle.path, moe, text=TEXT, backends=["reference"], max_tokens=41)
    assert found.window == 41
    assert found.quality["reference"].n_tokens == 40 - 20
    with pytest.raises(InputError, match=r"the text has 5 tokens, expected at least 16"):
        verify(bundle.path, moe, text=TEXT, backends=["reference"], max_tokens=5)


def test_progress_reaches_its_total(moe, tmp_path):
    bundle = export(moe, tmp_path / "out", quant="int8").bundle
    seen = []
    verify(bundle.path, moe, text=TEXT, backends=["reference"], progress=seen.append)
    done = [step.done for step in seen]
    assert done == sorted(done)
    assert seen[-1].done == seen[-1].total


def test_a_source_with_another_vocabulary_is_an_error(moe, tmp_path):
    bundle = export(moe, tmp_path / "out", quant="int8").bundle
    other = write_checkpoint(tmp_path / "other", "deepseek2", vocab_size=500)
    with pytest.raises(InputError, match=r"a vocabulary of 512 \(reference\), the source of 500"):
        verify(bundle.path, other, text=TEXT, backends=["reference"])


def test_a_quantized_gguf_is_its_own_baseline(moe, tmp_path):
    bundle = export(moe, tmp_path / "out", quant="int4").bundle
    found = verify(bundle.path, bundle.artifact(), text=TEXT, backends=["reference"])
    assert found.quality["reference"].mean_kld == 0


def test_the_default_text_fills_windows_of_the_default_size():
    text = evaluation_text()
    assert 6000 < len(text.encode()) < 10_000
    assert "<think>" in text


def test_a_checkpoint_runs_unquantized(source):
    with load_source(source, context=64) as engine:
        reply = engine.chat([{"role": "user", "content": "The dog"}], max_tokens=3, temperature=0)
        assert reply["model"] == source.name
        assert reply["usage"]["completion_tokens"] == 3
        assert engine.context == 64


def test_by_default_the_reference_and_the_engines_backend_are_verified(moe, tmp_path, monkeypatch):
    monkeypatch.setattr("sprat.export.verify.verify.importlib.util.find_spec", lambda _name: None)
    bundle = export(moe, tmp_path / "out", quant="int8").bundle
    found = verify(bundle.path, moe, text=TEXT, max_tokens=64)
    with Engine.load(bundle.path) as engine:
        assert list(found.quality) == list(dict.fromkeys(["reference", engine.backend_choice.name]))
