"""Remake tokenizer.model, a small BPE model, and golden.json, its ids (sentencepiece 0.2.3 made the stored ones)."""

import json
from pathlib import Path

import sentencepiece

HERE = Path(__file__).parent
STRINGS = [json.loads(line) for line in (HERE.parent / "hard_strings.txt").read_text("utf-8").splitlines()]


def main() -> None:
    text = HERE / "text.txt"
    text.write_text("\n".join(s for s in STRINGS if s.strip() and not {"\n", "\0"} & {*s}) + "\n", encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(HERE / "tokenizer"),
        model_type="bpe",
        vocab_size=1100,
        character_coverage=0.98,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        control_symbols=["<｜User｜>"],
        user_defined_symbols=["<think>", "</think>"],
    )
    text.unlink()
    (HERE / "tokenizer.vocab").unlink()
    processor = sentencepiece.SentencePieceProcessor(str(HERE / "tokenizer.model"))
    (HERE / "golden.json").write_text(json.dumps([processor.encode(text) for text in STRINGS]) + "\n")


if __name__ == "__main__":
    main()
