"""How far llama.cpp's logits are from ours, where rounding may choose another expert."""

import numpy as np

from sprat.quant.quality import QualityMeter


def divergence(base, logits, tokens):
    """Mean KL divergence of ``logits`` from ``base`` over ``tokens``, without the token that diverges most.

    llama.cpp rounds activations to float16 or int8, in an order that depends on the processor. Where two experts have
    nearly equal scores, rounding decides which one a token is sent to, and its logits then differ a hundred times more.
    """
    meter = QualityMeter()
    meter.add(base[:-1], logits[:-1], np.array(tokens[1:]))
    quality = meter.result()
    return (quality.n_tokens * quality.mean_kld - quality.kld_percentiles[100.0]) / (quality.n_tokens - 1)
