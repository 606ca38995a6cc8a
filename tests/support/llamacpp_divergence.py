"""How far llama.cpp's logits are from ours, where rounding may choose another expert."""

import numpy as np

from sprat.quant.quality import QualityMeter

REROUTED = 0.01  # nats: the most that one token in another expert of a tiny float32 mixture may diverge


def divergence(base, logits, tokens, *, may_reroute=False):
    """Mean KL divergence of ``logits`` from ``base`` over ``tokens``; with ``may_reroute`` without the worst token.

    llama.cpp rounds activations to float16, in an order that depends on the processor. Where two experts have nearly
    equal scores, rounding decides which one a token is sent to, and its logits then differ a hundred times more.
    """
    meter = QualityMeter()
    meter.add(base[:-1], logits[:-1], np.array(tokens[1:]))
    quality = meter.result()
    if not may_reroute:
        return quality.mean_kld
    worst = quality.kld_percentiles[100.0]
    assert worst < REROUTED, f"a token diverges by {worst} nats"
    return (quality.n_tokens * quality.mean_kld - worst) / (quality.n_tokens - 1)
