"""Quality of an artifact against its source: llama-perplexity's three blocks of statistics.

For every scored token: the negative log-likelihood under both models, the KL divergence KL(base || Q) over the whole
vocabulary in nats, the change of the correct token's probability, and whether both models have the same top token.
Statistics, errors, wording and order are those of ``llama-perplexity --kl-divergence``
(https://github.com/ggml-org/llama.cpp/tree/master/tools/perplexity), so that results can be compared line by line;
unlike there, logits are not rounded to 16 bits and small probabilities are not dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sprat.arrays import F32Array, F64Array, IntArray
from sprat.errors import InputError

__all__ = ["Estimate", "Quality", "QualityMeter", "routing_overlap"]


_CHUNK_LOGITS = 1 << 20  # per step: temporaries of 8 MiB each
_KLD_PERCENTILES = (100.0, 99.9, 99.0, 95.0, 90.0, 50.0, 10.0, 5.0, 1.0, 0.1, 0.0)
_DELTA_P_PERCENTILES = (100.0, 99.9, 99.0, 95.0, 90.0, 75.0, 50.0, 25.0, 10.0, 5.0, 1.0, 0.1, 0.0)
_NAMED_PERCENTILES = {100.0: "Maximum", 50.0: "Median ", 0.0: "Minimum"}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, or a function of means, with its standard error."""

    value: float
    error: float

    def exp(self) -> Estimate:
        """``exp`` of the estimate, with the error propagated to first order."""
        value = float(np.exp(self.value))
        return Estimate(value, value * self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """The statistics of :class:`QualityMeter`: probabilities from 0 to 1, divergences in nats; Q is the tested model.

    Attributes:
        n_tokens: tokens scored.
        ppl: perplexity of Q.
        ppl_base: perplexity of the base.
        correlation: of the two log-likelihoods.
        ln_ratio: ``ln(PPL(Q) / PPL(base))``.
        ratio: ``PPL(Q) / PPL(base)``.
        difference: ``PPL(Q) - PPL(base)``.
        kld: mean KL divergence.
        kld_percentiles: percent -> divergence; 100 is the maximum, 50 the median.
        delta_p: mean change of the correct token's probability.
        delta_p_percentiles: percent -> change.
        delta_p_rms: root of the mean squared change.
        same_top: share of tokens for which both models have the same top token.
    """

    n_tokens: int
    ppl: Estimate
    ppl_base: Estimate
    correlation: float
    ln_ratio: Estimate
    ratio: Estimate
    difference: Estimate
    kld: Estimate
    kld_percentiles: dict[float, float]
    delta_p: Estimate
    delta_p_percentiles: dict[float, float]
    delta_p_rms: Estimate
    same_top: Estimate

    @property
    def mean_kld(self) -> float:
        """Mean KL divergence in nats, the pass criterion of ``sprat verify``."""
        return self.kld.value

    def text(self) -> str:
        """The three blocks as llama-perplexity prints them."""
        return "\n\n".join([self._perplexity_text(), self._kld_text(), self._token_text()])

    def _perplexity_text(self) -> str:
        lines = [
            "====== Perplexity statistics ======",
            f"Mean PPL(Q)                   : {_plain(self.ppl)}",
            f"Mean PPL(base)                : {_plain(self.ppl_base)}",
            f"Cor(ln(PPL(Q)), ln(PPL(base))): {100 * self.correlation:6.2f}%",
            f"Mean ln(PPL(Q)/PPL(base))     : {_plain(self.ln_ratio)}",
            f"Mean PPL(Q)/PPL(base)         : {_plain(self.ratio)}",
            f"Mean PPL(Q)-PPL(base)         : {_plain(self.difference)}",
        ]
        return "\n".join(lines)

    def _kld_text(self) -> str:
        rows = [f"{_label(percent)} KLD: {value:10.6f}" for percent, value in self.kld_percentiles.items()]
        return "\n".join(["====== KL divergence statistics ======", f"Mean    KLD: {_plain(self.kld)}", *rows])

    def _token_text(self) -> str:
        rows = [f"{_label(percent)} Δp: {100 * value:6.3f}%" for percent, value in self.delta_p_percentiles.items()]
        lines = [
            "====== Token probability statistics ======",
            f"Mean    Δp: {_percent(self.delta_p)}",
            *rows,
            f"RMS Δp    : {_percent(self.delta_p_rms)}",
            f"Same top p: {_percent(self.same_top)}",
        ]
        return "\n".join(lines)


class QualityMeter:
    """Accumulates the statistics of both models token by token.

    Example:
        >>> meter = QualityMeter()
        >>> meter.add(np.float32([[0, 0]]), np.float32([[0, np.log(3)]]), np.array([1]))
        >>> round(meter.result().delta_p.value, 6)
        0.25
    """

    def __init__(self) -> None:
        self._rows: list[F64Array] = []

    def add(self, base_logits: F32Array, logits: F32Array, next_tokens: IntArray) -> None:
        """Score ``n`` positions.

        Args:
            base_logits: logits of the source, ``(n, vocab_size)``.
            logits: logits of the tested model, the same shape.
            next_tokens: the token that follows each position in the text, ``(n,)``.

        Raises:
            InputError: the shapes do not match.
        """
        if base_logits.shape != logits.shape or logits.shape[:1] != next_tokens.shape:
            raise InputError(
                f"logits {base_logits.shape} of the base, {logits.shape} of the model and {next_tokens.shape} next "
                "tokens do not match; expected (n, vocab_size) twice, and (n,)"
            )
        rows = max(1, _CHUNK_LOGITS // logits.shape[1])
        for start in range(0, len(logits), rows):
            chunk = slice(start, start + rows)
            self._rows.append(_score(base_logits[chunk], logits[chunk], next_tokens[chunk]))

    def result(self) -> Quality:
        """The statistics of all tokens so far.

        Raises:
            InputError: no token was added.
        """
        if not self._rows:
            raise InputError("no token was scored, expected at least one; pass a longer text")
        with np.errstate(all="ignore"):  # an infinite divergence is a valid result
            return _statistics(*np.concatenate(self._rows).T)


def routing_overlap(base_experts: IntArray, experts: IntArray) -> F64Array:
    """Share of experts that two runs both chose, ``(n,)``, from expert ids ``(n, n_experts_per_token)``.

    Raises:
        InputError: the shapes differ.
    """
    if base_experts.shape != experts.shape:
        raise InputError(f"expert ids of shapes {base_experts.shape} and {experts.shape}, expected equal shapes")
    common = (base_experts[:, :, None] == experts[:, None, :]).any(axis=2)
    overlap: F64Array = common.mean(axis=1, dtype=np.float64)
    return overlap


def _statistics(nll: F64Array, nll_base: F64Array, kld: F64Array, delta_p: F64Array, same_top: F64Array) -> Quality:
    """All statistics, from the values of each token."""
    log_ppl, log_base, mse = _mean(nll), _mean(nll_base), _mean(delta_p**2)
    ppl, base, rms = log_ppl.exp(), log_base.exp(), math.sqrt(mse.value)
    covariance = _covariance_of_means(nll, nll_base)
    errors = log_ppl.error * log_base.error
    ln_ratio = _difference(log_ppl, log_base, covariance)
    return Quality(
        n_tokens=len(nll),
        ppl=ppl,
        ppl_base=base,
        correlation=covariance / errors if errors else math.nan,
        ln_ratio=ln_ratio,
        ratio=ln_ratio.exp(),
        difference=_difference(ppl, base, ppl.value * base.value * covariance),
        kld=_mean(kld),
        kld_percentiles=_percentiles(kld, _KLD_PERCENTILES),
        delta_p=_mean(delta_p),
        delta_p_percentiles=_percentiles(delta_p, _DELTA_P_PERCENTILES),
        delta_p_rms=Estimate(rms, mse.error / (2 * rms) if rms else 0.0),
        same_top=_mean(same_top),
    )


def _score(base_logits: F32Array, logits: F32Array, next_tokens: IntArray) -> F64Array:
    """Columns nll, nll_base, kld, delta_p, same_top; ``(n, 5)``."""
    with np.errstate(invalid="ignore"):  # NaN logits give NaN statistics, which do not pass
        log_base, log_p = _log_softmax(base_logits), _log_softmax(logits)
        p_base = np.exp(log_base)
        kld = np.where(p_base > 0, p_base * (log_base - log_p), 0.0).sum(axis=1)
    rows = np.arange(len(logits))
    nll, nll_base = -log_p[rows, next_tokens], -log_base[rows, next_tokens]
    same_top = base_logits.argmax(axis=1) == logits.argmax(axis=1)
    return np.stack([nll, nll_base, kld, np.exp(-nll) - np.exp(-nll_base), same_top], axis=1)


def _log_softmax(logits: F32Array) -> F64Array:
    shifted = logits.astype(np.float64)
    shifted -= logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _mean(values: F64Array) -> Estimate:
    """Mean and standard error; the error is 0 for at most 10 values, as in llama-perplexity."""
    return Estimate(float(values.mean()), math.sqrt(_covariance_of_means(values, values)))


def _covariance_of_means(a: F64Array, b: F64Array) -> float:
    if len(a) <= 10:
        return 0.0
    return float(np.mean((a - a.mean()) * (b - b.mean()))) / (len(a) - 1)


def _difference(a: Estimate, b: Estimate, covariance: float) -> Estimate:
    return Estimate(a.value - b.value, math.sqrt(max(0.0, a.error**2 + b.error**2 - 2 * covariance)))


def _percentiles(values: F64Array, percents: tuple[float, ...]) -> dict[float, float]:
    return dict(zip(percents, np.percentile(values, percents).tolist(), strict=True))


def _label(percent: float) -> str:
    return _NAMED_PERCENTILES.get(percent) or f"{percent:4.1f}%  "


def _plain(estimate: Estimate) -> str:
    return f"{estimate.value:10.6f} ± {estimate.error:10.6f}"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:6.3f} ± {100 * estimate.error:5.3f} %"
