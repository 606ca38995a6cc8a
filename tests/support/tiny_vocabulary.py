"""Small tokenizers of every kind, trained by the test, and strings on which tokenizers differ."""

import json
from pathlib import Path

from sprat.runtime.tokenizer.pretokenizers import get_pre_tokenizer

BOS, EOS, USER = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>"
HARD_STRINGS: list[str] = [
    json.loads(line) for line in (Path(__file__).parents[1] / "data/hard_strings.txt").read_text("utf-8").splitlines()
]


def write_byte_level(folder: Path, pre_name: str, *, across_words: bool = False, **config: object) -> Path:
    """Write a byte-level BPE tokenizer of 1,200 tokens to ``folder``, and return the folder.

    With ``across_words`` its merges cross word boundaries, so that other boundaries give other ids.
    """
    import tokenizers
    from tokenizers import AddedToken, models, pre_tokenizers, trainers

    pre = get_pre_tokenizer(pre_name)
    document = {"version": "1.0", "added_tokens": [], "pre_tokenizer": pre.json(), "model": {"type": "BPE"}}
    document["model"] |= {"vocab": {}, "merges": []}
    trained = tokenizers.Tokenizer.from_str(json.dumps(document))
    if across_words:
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trained.model = models.BPE(ignore_merges=pre.ignore_merges)
    trainer = trainers.BpeTrainer(
        vocab_size=1200, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    trained.train_from_iterator(HARD_STRINGS * 2, trainer)
    trained.add_special_tokens([AddedToken(text, special=True) for text in (BOS, EOS)])
    trained.add_tokens([AddedToken(text, special=False) for text in (USER, "<｜Assistant｜>", "<think>", "</think>")])
    saved = json.loads(trained.to_str()) | {"pre_tokenizer": pre.json()}
    saved["normalizer"] = {"type": pre.normalizer} if pre.normalizer else None
    return _write(folder, saved, {"bos_token": {"content": BOS}, "eos_token": EOS, "add_bos_token": True} | config)


def _write(folder: Path, tokenizer: dict, config: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"vocab_size": 1280}), encoding="utf-8")
    return folder
