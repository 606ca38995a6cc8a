"""The student's tokenizer: byte-level BPE with single digits, and R1's special tokens and chat format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

__all__ = ["BOS", "CHAT_TEMPLATE", "EOS", "chat_prompt", "completion", "train_tokenizer", "write_tokenizer"]

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
THINK, END_THINK = "<think>", "</think>"
SPECIAL = (BOS, EOS, PAD, USER, ASSISTANT)
"""Left out of decoded text. The two think tags are not special, as in R1, so that decoded text contains them."""

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<｜Assistant｜>' + message['content'].split('</think>')[-1].strip() + eos_token }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)
"""R1's format. Past reasoning is dropped; `enable_thinking=False` closes the think block in the prompt."""


def chat_prompt(message: str) -> str:
    """One user message as the chat template renders it, with the generation prompt."""
    return f"{BOS}{USER}{message}{ASSISTANT}{THINK}\n"


def completion(reasoning: str, answer: str) -> str:
    """The target after `chat_prompt`: reasoning (if empty, the think block is closed at once) and answer."""
    thinking = f"{reasoning}\n" if reasoning else ""
    return f"{thinking}{END_THINK}\n\n{answer}{EOS}"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE over `texts`. The pre-tokenizer is the one llama.cpp knows as ``smollm``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in (THINK, END_THINK)])
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bos)]
    )
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """``tokenizer.json`` and ``tokenizer_config.json``; the latter has the chat template, too, for older readers."""
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {
        str(index): {
            "content": token.content,
            "special": token.special,
            "normalized": token.normalized,
            "lstrip": False,
            "rstrip": False,
            "single_word": False,
        }
        for index, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "added_tokens_decoder": added,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
