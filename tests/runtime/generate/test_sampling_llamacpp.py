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
]


def llama_distribution(logits, history, params):
    """Token id -> probability after penalties, top-k, top-p, min-p, temperature and the softmax of ``dist``."""
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    steps = [
        llama_cpp.llama_sampler_init_penalties(len(logits), 64, params.repeat_penalty, 0.0, 0.0),
        llama_cpp.llama_sampler_init_top_k(params.top_k),
        llama_cpp.llama_sampler_init_top_p(params.top_p, 1),
        llama_cpp.llama_sampler_init_min_p(params.min_p, 1),
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
    distribution = {candidates.data[i].id: candidates.data[i].p for i in range(candidates.size)}
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
