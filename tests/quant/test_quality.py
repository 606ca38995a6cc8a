"""llama-perplexity's statistics, against a direct float64 computation, hand-computed cases, and its output text."""

import math

import numpy as np
import pytest

from sprat.errors import InputError
from sprat.quant import quality
from sprat.quant.quality import Estimate, Quality, QualityMeter, routing_overlap


@pytest.fixture
def logits():
    """Logits of a base and of a model near it, ``(300, 50)``, and the next tokens."""
    rng = np.random.default_rng(2)
    base = rng.standard_normal((300, 50), np.float32) * 3
    return base, base + rng.standard_normal(base.shape, np.float32) / 4, rng.integers(0, 50, 300)


def measured(*parts) -> Quality:
    meter = QualityMeter()
    for part in parts:
        meter.add(*part)
    return meter.result()


def test_statistics_match_a_direct_computation(logits):
    base, model, tokens = (np.asarray(values, np.float64 if values.ndim > 1 else None) for values in logits)
    p_base, p = (np.exp(values) / np.exp(values).sum(1, keepdims=True) for values in (base, model))
    rows = np.arange(300)
    nll_base, nll = -np.log(p_base[rows, tokens]), -np.log(p[rows, tokens])
    kld, delta = (p_base * np.log(p_base / p)).sum(1), p[rows, tokens] - p_base[rows, tokens]
    found = measured(logits)

    def close(estimate: Estimate, value: float, error: float):
        assert estimate.value == pytest.approx(value, rel=1e-6)
        assert estimate.error == pytest.approx(error, rel=1e-6)

    def standard_error(values):
        return values.std(ddof=1) * math.sqrt(299 / 300) / math.sqrt(299)  # llama-perplexity divides by n, then n - 1

    assert found.n_tokens == 300
    close(found.ppl, np.exp(nll.mean()), np.exp(nll.mean()) * standard_error(nll))
    close(found.ppl_base, np.exp(nll_base.mean()), np.exp(nll_base.mean()) * standard_error(nll_base))
    close(found.ln_ratio, (nll - nll_base).mean(), standard_error(nll - nll_base))
    ratio = np.exp((nll - nll_base).mean())
    close(found.ratio, ratio, ratio * standard_error(nll - nll_base))
    assert found.difference.value == pytest.approx(np.exp(nll.mean()) - np.exp(nll_base.mean()))
    gradient = np.exp(nll.mean()) * nll - np.exp(nll_base.mean()) * nll_base
    assert found.difference.error == pytest.approx(standard_error(gradient))
    assert found.correlation == pytest.approx(np.corrcoef(nll, nll_base)[0, 1])
    close(found.kld, kld.mean(), standard_error(kld))
    close(found.delta_p, delta.mean(), standard_error(delta))
    rms = np.sqrt((delta**2).mean())
    close(found.delta_p_rms, rms, standard_error(delta**2) / (2 * rms))
    same = (base.argmax(1) == model.argmax(1)).mean()
    close(found.same_top, same, math.sqrt(same * (1 - same) / 299))
    for percent in (99.9, 95.0, 50.0, 1.0):
        assert found.kld_percentiles[percent] == pytest.approx(np.percentile(kld, percent))
        assert found.delta_p_percentiles[percent] == pytest.approx(np.percentile(delta, percent))
    assert (found.kld_percentiles[100.0], found.kld_percentiles[0.0]) == pytest.approx((kld.max(), kld.min()))


def test_a_two_token_vocabulary_by_hand():
    even, three_to_one = np.float32([[0, 0]]), np.float32([[math.log(3), 0]])
    found = measured((even, three_to_one, np.array([0])))
    assert found.ppl.value == pytest.approx(4 / 3)
    assert found.ppl_base.value == pytest.approx(2)
    assert found.mean_kld == found.kld.value == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    assert found.delta_p.value == found.delta_p_rms.value == pytest.approx(0.25)
    assert found.same_top.value == 1
    assert found.kld.error == 0  # the error is 0 for at most 10 tokens


def test_a_model_compared_with_itself_has_no_divergence(logits):
    base, _, tokens = logits
    found = measured((base, base, tokens))
    assert found.mean_kld == found.delta_p_rms.value == found.ln_ratio.value == found.ln_ratio.error == 0
    assert found.same_top == Estimate(1, 0)
    assert found.correlation == pytest.approx(1)


def test_adding_in_parts_gives_the_same_statistics(logits, monkeypatch):
    whole = measured(logits)
    monkeypatch.setattr(quality, "_CHUNK_LOGITS", 7 * 50)
    parts = measured(*([values[start : start + 90] for values in logits] for start in range(0, 300, 90)))
    assert parts == whole


def test_logits_far_from_zero_do_not_overflow(logits):
    base, model, tokens = logits
    assert measured((base + 1e4, model - 1e4, tokens)).mean_kld == pytest.approx(measured(logits).mean_kld, rel=1e-2)


def test_zero_probability_in_the_base_is_finite_and_in_the_model_infinite():
    certain, even = np.float32([[0, -np.inf]]), np.float32([[0, 0]])
    assert measured((certain, even, np.array([0]))).mean_kld == pytest.approx(math.log(2))
    found = measured((even, certain, np.array([1])))
    assert found.mean_kld == math.inf
    assert found.ppl.value == math.inf


def test_nan_logits_make_a_nan_divergence():
    assert math.isnan(measured((np.float32([[0, 1]]), np.float32([[np.nan, 1]]), np.array([1]))).mean_kld)


def test_the_text_is_llama_perplexitys():
    found = Quality(
        n_tokens=1000,
        ppl=Estimate(10.5, 0.25),
        ppl_base=Estimate(10.0, 0.125),
        correlation=0.9875,
        ln_ratio=Estimate(0.048790, 0.001),
        ratio=Estimate(1.05, 0.00105),
        difference=Estimate(0.5, 0.0625),
        kld=Estimate(0.03125, 0.0005),
        kld_percentiles=dict.fromkeys([100.0, 99.9, 99.0, 95.0, 90.0, 50.0, 10.0, 5.0, 1.0, 0.1, 0.0], 0.5),
        delta_p=Estimate(-0.0125, 0.00125),
        delta_p_percentiles=dict.fromkeys([100.0, 99.9, 75.0, 50.0, 5.0, 0.0], 0.0625),
        delta_p_rms=Estimate(0.0625, 0.001),
        same_top=Estimate(0.9, 0.0095),
    )
    assert found.text() == (
        "====== Perplexity statistics ======\n"
        "Mean PPL(Q)                   :  10.500000 ±   0.250000\n"
        "Mean PPL(base)                :  10.000000 ±   0.125000\n"
        "Cor(ln(PPL(Q)), ln(PPL(base))):  98.75%\n"
        "Mean ln(PPL(Q)/PPL(base))     :   0.048790 ±   0.001000\n"
        "Mean PPL(Q)/PPL(base)         :   1.050000 ±   0.001050\n"
        "Mean PPL(Q)-PPL(base)         :   0.500000 ±   0.062500\n"
        "\n"
        "====== KL divergence statistics ======\n"
        "Mean    KLD:   0.031250 ±   0.000500\n"
        "Maximum KLD:   0.500000\n"
        "99.9%   KLD:   0.500000\n"
        "99.0%   KLD:   0.500000\n"
        "95.0%   KLD:   0.500000\n"
        "90.0%   KLD:   0.500000\n"
        "Median  KLD:   0.500000\n"
        "10.0%   KLD:   0.500000\n"
        " 5.0%   KLD:   0.500000\n"
        " 1.0%   KLD:   0.500000\n"
        " 0.1%   KLD:   0.500000\n"
        "Minimum KLD:   0.500000\n"
        "\n"
        "====== Token probability statistics ======\n"
        "Mean    Δp: -1.250 ± 0.125 %\n"
        "Maximum Δp:  6.250%\n"
        "99.9%   Δp:  6.250%\n"
        "75.0%   Δp:  6.250%\n"
        "Median  Δp:  6.250%\n"
        " 5.0%   Δp:  6.250%\n"
        "Minimum Δp:  6.250%\n"
        "RMS Δp    :  6.250 ± 0.100 %\n"
        "Same top p: 90.000 ± 0.950 %"
    )


def test_the_percentiles_are_those_of_llama_perplexity(logits):
    found = measured(logits)
    assert list(found.kld_percentiles) == [100.0, 99.9, 99.0, 95.0, 90.0, 50.0, 10.0, 5.0, 1.0, 0.1, 0.0]
    both = [100.0, 99.9, 99.0, 95.0, 90.0, 75.0, 50.0, 25.0, 10.0, 5.0, 1.0, 0.1, 0.0]
    assert list(found.delta_p_percentiles) == both


def test_mismatched_shapes_are_an_error():
    with pytest.raises(InputError, match=r"\(3, 8\) of the base, \(3, 9\) of the model"):
        QualityMeter().add(np.zeros((3, 8), np.float32), np.zeros((3, 9), np.float32), np.zeros(3, int))
    with pytest.raises(InputError, match="no token was scored"):
        QualityMeter().result()


def test_routing_overlap_ignores_the_order_of_experts():
    base, model = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), np.array([[3, 1, 2], [4, 7, 5], [1, 2, 3]])
    np.testing.assert_allclose(routing_overlap(base, model), [1, 2 / 3, 0])
    with pytest.raises(InputError, match="expected equal shapes"):
        routing_overlap(base, model[:2])
