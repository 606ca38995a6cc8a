"""A model with scripted output: one token per byte, a few special tokens, and a function that returns the logits."""

import numpy as np

from sprat.runtime.chat.template import ChatTemplate
from sprat.runtime.engine import Engine
from sprat.runtime.tokenizer.tokenizer import Tokenizer

FIM = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
SPECIAL = ["<bos>", "<eos>", "<|user|>", "<|assistant|>"]
BOS, EOS, USER, ASSISTANT = range(256, 260)
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_tokenizer(special=SPECIAL):
    """Ids 0 to 255 are bytes; the special tokens follow."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    alphabet = [chr(byte if byte in printable else next(others)) for byte in range(256)]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*alphabet, *special],
        "tokenizer.ggml.token_type": [1] * 256 + [3] * len(special),
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": BOS,
        "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.ggml.add_bos_token": True,
    }
    return Tokenizer.from_gguf(metadata)


class FakeCache:
    """A KV cache of no bytes."""

    geometry = "none"

    def views(self, start, stop):
        return ()


class ScriptedStream:
    """A token stream whose logits come from a function of all its tokens."""

    def __init__(self, logits_after, capacity):
        self.tokens = []
        self.capacity = capacity
        self.processed = []  # tokens of each call
        self.closed = 0
        self._logits_after = logits_after

    @property
    def length(self):
        return len(self.tokens)

    def forward(self, tokens):
        assert len(tokens) > 0
        assert self.length + len(tokens) <= self.capacity
        self.tokens += tokens
        self.processed.append(list(tokens))
        return self._logits_after(self.tokens)

    def forward_all(self, tokens):
        return np.array([self.forward([token]) for token in tokens])

    @property
    def cache(self):
        return FakeCache()

    def truncate(self, length):
        del self.tokens[length:]

    def close(self):
        self.closed += 1


class ScriptedBackend:
    """Creates scripted streams, and keeps them for the test to inspect."""

    name = "scripted"
    vocab_size = 260

    def __init__(self, logits_after, max_context=1000):
        self.max_context = max_context
        self.streams = []
        self.closed = False
        self._logits_after = logits_after

    def new_stream(self, capacity, observe=None):
        self.streams.append(ScriptedStream(self._logits_after, capacity))
        return self.streams[-1]

    def close(self):
        self.closed = True


def saying(*replies):
    """Logits that generate the n-th reply in the n-th assistant turn, or continue any text with the only reply."""

    def logits_after(tokens):
        turn = tokens.count(ASSISTANT)
        reply = [*replies[max(0, turn - 1)].encode(), EOS]
        answered = (
            tokens[len(tokens) - tokens[::-1].index(ASSISTANT) :] if turn else tokens[tokens.index(ord(":")) + 1 :]
        )
        logits = np.zeros(ScriptedBackend.vocab_size, np.float32)
        logits[reply[len(answered)]] = 100
        return logits

    return logits_after


def random_logits(tokens):
    """Random logits that depend only on the last three tokens."""
    seed = sum((index + 1) * token for index, token in enumerate(tokens[-3:]))
    logits = np.random.default_rng(seed).standard_normal(ScriptedBackend.vocab_size).astype(np.float32)
    logits[256:] = -100
    return logits


def scripted_engine(logits_after, *, template=TEMPLATE, **settings):
    """An engine over a scripted backend."""
    return Engine(
        ScriptedBackend(logits_after),
        byte_tokenizer(),
        template=ChatTemplate(template, {"bos_token": "<bos>", "eos_token": "<eos>"}) if template else None,
        **settings,
    )
