"""Cost of a constrained answer per token: ``python benchmarks/constrain.py --json``.

A model of DeepSeek-V2-Lite's shape with random weights answers under a JSON schema, again and again. Such files have no
tokenizer; the vocabulary of 102,400 tokens is made here: all bytes, and runs of letters, digits, spaces and marks, so
that masks inside of texts allow most of it. ``schema_mask_share`` is the time of the masks, of the grammar's steps and
of sampling under a mask beyond sampling without one, relative to the time of a token without a schema. Fewer layers
make tokens faster, and the share larger.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import string
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from sprat.export.gguf.random_weights import cached_preset
from sprat.runtime.backends.protocol import TokenStream
from sprat.runtime.backends.registry import LoadRequest, choose, open_backend
from sprat.runtime.generate.constraint.grammar import GrammarVocabulary
from sprat.runtime.generate.constraint.grammar_guide import GrammarGuide
from sprat.runtime.generate.constraint.response_format import grammar_of
from sprat.runtime.generate.guide import ids_of
from sprat.runtime.generate.sampling import Sampler, SamplingParams
from sprat.runtime.memory.footprint import DEFAULT_BATCH
from sprat.runtime.open_model import open_model
from sprat.runtime.tokenizer.byte_alphabet import byte_alphabet
from sprat.runtime.tokenizer.tokenizer import Tokenizer

_SCHEMA = {
    "type": "object",
    "properties": {
        "device": {"enum": ["lamp", "heating", "blinds"]},
        "room": {"type": "string", "maxLength": 20},
        "level": {"type": "integer", "minimum": 0, "maximum": 100},
        "on": {"type": "boolean"},
        "reply": {"type": "string", "maxLength": 200},
    },
    "required": ["device", "room", "on", "reply"],
    "additionalProperties": False,
}
_WARM_UP = 8  # tokens that do not count
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Milliseconds for each token, on average, and what they add up to."""

    preset: str
    layers: int
    vocab_size: int
    tokens: int
    vocabulary_s: float  # to make the masks' vocabulary, once
    forward_ms: float
    mask_ms: float
    accept_ms: float
    sample_ms: float  # without a mask
    sample_masked_ms: float
    schema_mask_share: float
    load_average: float


class _Clock:
    """Seconds of calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, function: Callable[..., _Result], *args: Any) -> _Result:
        started = time.perf_counter()
        result = function(*args)
        self.seconds += time.perf_counter() - started
        return result


def _tokenizer(vocab_size: int) -> Tokenizer:
    """A byte-level tokenizer of so many tokens; the last one ends the answer."""
    rng = random.Random(0)
    tokens = list(byte_alphabet())
    seen = set(tokens)
    kinds = (string.ascii_lowercase, string.ascii_letters, string.digits, "Ġ" * 3 + string.ascii_lowercase, '.,:{}"[]Ġ')
    while len(tokens) < vocab_size - 1:
        text = "".join(rng.choices(rng.choice(kinds), k=rng.randint(2, 9)))
        if text not in seen:
            seen.add(text)
            tokens.append(text)
    return Tokenizer.from_gguf({
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*tokens, "<eos>"],
        "tokenizer.ggml.token_type": [1] * (vocab_size - 1) + [3],
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.eos_token_id": vocab_size - 1,
    })  # fmt: skip


def _stream(preset: str, layers: int, threads: int) -> tuple[TokenStream, int]:
    model = open_model(cached_preset(preset, "Q4_0", layers))
    request = LoadRequest(
        file=model.file, spec=model.spec, context=4096, batch=DEFAULT_BATCH, n_threads=threads, memory_bytes=None
    )
    backend = open_backend(choose("native", request), request)
    return backend.new_stream(4096), backend.vocab_size


def measure(preset: str, layers: int, n_tokens: int, threads: int) -> Cost:
    """Generate ``n_tokens`` under the schema; sampling without a mask is timed on the same logits."""
    stream, vocab_size = _stream(preset, layers, threads)
    tokenizer, started = _tokenizer(vocab_size), time.perf_counter()
    vocabulary = GrammarVocabulary(tokenizer, vocab_size)
    vocabulary_s = time.perf_counter() - started
    grammar = grammar_of({"type": "json_schema", "schema": _SCHEMA})
    assert grammar is not None, "a schema is a grammar"
    sampler, guide = Sampler(SamplingParams(seed=0)), GrammarGuide(vocabulary, grammar)
    forward, mask, accept, sample, masked = (_Clock() for _ in range(5))
    clocks, tokens = (forward, mask, accept, sample, masked), [1]
    for index in range(_WARM_UP + n_tokens):
        if index == _WARM_UP:
            for clock in clocks:
                clock.seconds = 0.0
        logits = forward(stream.forward, tokens[-1:])
        ids = mask(lambda current: ids_of(current.allowed()), guide)
        sample(sampler.sample, logits, tokens)
        token, _ = masked(sampler.sample, logits, tokens, ids)
        accept(guide.accept, token)
        tokens.append(token)
        if guide.is_complete:
            guide = GrammarGuide(vocabulary, grammar)
    costs = mask.seconds + accept.seconds + max(0.0, masked.seconds - sample.seconds)
    forward_ms, mask_ms, accept_ms, sample_ms, masked_ms = (1e3 * clock.seconds / n_tokens for clock in clocks)
    return Cost(
        preset=preset,
        layers=layers,
        vocab_size=vocab_size,
        tokens=n_tokens,
        vocabulary_s=vocabulary_s,
        forward_ms=forward_ms,
        mask_ms=mask_ms,
        accept_ms=accept_ms,
        sample_ms=sample_ms,
        sample_masked_ms=masked_ms,
        schema_mask_share=costs / (forward.seconds + sample.seconds),
        load_average=os.getloadavg()[0],
    )


def main() -> None:
    """Print the costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--shape", default="deepseek-v2-lite")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    cost = asdict(measure(args.shape, args.layers, args.tokens, args.threads))
    if args.json:
        print(json.dumps(cost))
        return
    for name, value in cost.items():
        print(f"{name:20} {value:.4g}" if isinstance(value, float) else f"{name:20} {value}")


if __name__ == "__main__":
    main()
