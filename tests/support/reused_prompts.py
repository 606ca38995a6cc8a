"""A prompt, greedy answers with how much of it was reused, and an engine's memory for one context."""

import numpy as np
from tiny_engines import tiny_engine

LONG = np.random.default_rng(5).integers(2, 60, 100).tolist()


def answer(engine, prompt, n=12, **options):
    """Token ids of a greedy answer, and how many tokens of the prompt were reused."""
    generation = engine.generate(prompt, max_tokens=n, temperature=0, **options)
    ids = [piece.token_id for piece in generation]
    usage = generation.summary.usage
    assert usage.prompt_tokens_details.cached_tokens == generation.summary.timings.cache_n
    assert generation.summary.timings.prompt_n == usage.prompt_tokens - generation.summary.timings.cache_n
    return ids, usage.prompt_tokens_details.cached_tokens


def need_of_one_cache():
    """Bytes for the weights, the buffers and one cache of 512 tokens."""
    with tiny_engine("llama", memory=10**9, context=512) as engine:
        return 10**9 - engine._budget._limit_bytes + engine._budget.cost.nbytes(512)
