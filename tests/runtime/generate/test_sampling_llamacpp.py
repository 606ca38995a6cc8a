"""The distribution equals that of llama.cpp's samplers in the order of its default chain."""

import ctypes

import numpy as np
import pytest

from sprat.runtime.generate.sampling import Sampler, SamplingParams

pytestmark = pytest.mark.slow
llama_cpp = pytest.importorskip("llama_cpp")

SETTINGS = [
    {},
    {"temperature": 1.7, "top_k": 0, "min_p": 0.0},
    {"top_k": 5, "top_p": 1.0, "min_p": 0.0},
    {"top_k": 0, "top_p": 0.7, "min_p": 0.0},
    {"top_k": 0, "top_p": 1.0, "min_p": 0.2},
    {"repeat_penalty": 1.4},
    {"repeat_penalty": 1.4, "top_k": 10, "top_p": 0.8, "min_p": 0.1, "temperature": 0.3},
    {"presence_penalty": 1.5},
    {"frequency_penalty": -0.7, "repeat_penalty": 1.2},
    {"presence_penalty": -1.0, "frequency_penalty": 0.5},
    {"logit_bias": {3: 5.0, 100: -100.0, 7: 2.5}, "top_k": 0},
    {"typical_p": 0.4, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    {"typical_p": 0.9, "top_k": 20, "top_p": 0.8},
    {"top_n_sigma": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    {"top_n_sigma": 0.3, "top_k": 7},
    {"xtc_probability": 1.0, "xtc_threshold": 0.05},
    {"xtc_probability": 1.0, "xtc_threshold": 0.3, "top_k": 0, "min_p": 0.0},
    {"xtc_probability": 1.0, "xtc_threshold": 0.6},
    # Not top_n_sigma with typical_p: what the first masks has probability 0, and llama.cpp's entropy is then NaN
    {"logit_bias": {1: 1.0}, "presence_penalty": 0.3, "top_n_sigma": 2.0, "xtc_probability": 1.0},
    {"logit_bias": {1: 1.0}, "presence_penalty": 0.3, "typical_p": 0.8, "xtc_probability": 1.0},
]


def llama_distribution(logits, history, params):
    """Token id -> probability after the samplers of common_params_sampling in order, and the softmax of ``dist``."""
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    penalties = (params.repeat_penalty, params.frequency_penalty, params.presence_penalty)
    biases = [llama_cpp.llama_logit_bias(token=token, bias=bias) for token, bias in params.logit_bias.items()]
    steps = [
        llama_cpp.llama_sampler_init_logit_bias(
            len(logits), len(biases), (llama_cpp.llama_logit_bias * len(biases))(*biases)
        ),
        llama_cpp.llama_sampler_init_penalties(len(logits), 64, *penalties),
        llama_cpp.llama_sampler_init_top_n_sigma(params.top_n_sigma),
        llama_cpp.llama_sampler_init_top_k(params.top_k),
        llama_cpp.llama_sampler_init_typical(params.typical_p, 1),
        llama_cpp.llama_sampler_init_top_p(params.top_p, 1),
        llama_cpp.llama_sampler_init_min_p(params.min_p, 1),
        llama_cpp.llama_sampler_init_xtc(params.xtc_probability, params.xtc_threshold, 1, 0),
        llama_cpp.llama_sampler_init_temp(params.temperature),
        llama_cpp.llama_sampler_init_dist(0),
    ]
    for step in steps:
        llama_cpp.llama_sampler_chain_add(chain, step)
    for token in history:
        llama_cpp.llama_sampler_accept(chain, token)
    rows = (llama_cpp.llama_token_data * len(logits))(*[(i, float(x), 0.0) for i, x in enumerate(logits)])
    candidates = llama_cpp.llama_token_data_array(data=rows, size=len(logits), selected=-1, sorted=False)
    llama_cpp.llama_sampler_apply(chain, ctypes.byref(candidates))
    distribution = {row.id: row.p for row in candidates.data[: candidates.size] if row.p > 0}  # 0: masked
    llama_cpp.llama_sampler_free(chain)
    return distribution


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_the_distribution_equals_that_of_llama_cpp(changes):
    params = SamplingParams(**changes)
    random = np.random.default_rng(3)
    for _ in range(20):
        logits = random.normal(scale=3, size=200).astype(np.float32)
        history = random.integers(0, 200, size=100).tolist()
        ids, probabilities = Sampler(params).distribution(logits, history)
        ours = dict(zip(ids.tolist(), probabilities.tolist(), strict=True))
        assert ours == pytest.approx(llama_distribution(logits, history, params), rel=1e-4)
