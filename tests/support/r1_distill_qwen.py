"""A small tokenizer in the layout that DeepSeek-R1-Distill-Qwen publishes (docs/tokenizers.md has the source)."""

import json
from pathlib import Path

from tiny_vocabulary import BOS, EOS, USER, write_byte_level

# after the words: text, and whether the file calls it special
ADDED_TOKENS = [
    (EOS, True),
    (USER, False),
    ("<｜Assistant｜>", False),
    (BOS, True),
    ("<|EOT|>", False),
    ("<think>", False),
    ("</think>", False),
    *((f"<|{name}|>", True) for name in ("quad_start", "quad_end", "vision_start", "vision_end", "vision_pad")),
    *((f"<|{name}|>", True) for name in ("image_pad", "video_pad")),
    ("<tool_call>", False),
    ("</tool_call>", False),
    *((f"<|{name}|>", False) for name in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad")),
    *((f"<|{name}|>", False) for name in ("repo_name", "file_sep")),
]
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def write_r1_distill_qwen(folder: Path) -> Path:
    """Write tokenizer.json, tokenizer_config.json and config.json to ``folder``, and return the folder."""
    path = write_byte_level(folder, "qwen2") / "tokenizer.json"
    document = json.loads(path.read_text("utf-8"))
    write_added_tokens(folder, document)
    config = {"vocab_size": 1280, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def write_added_tokens(folder: Path, document: dict) -> None:
    """Write ``document``, a tokenizer.json of Qwen2, with the added tokens and the BOS of the distills."""
    first = len(document["model"]["vocab"])
    ids = {text: first + index for index, (text, _) in enumerate(ADDED_TOKENS)}
    document["added_tokens"] = [
        {"id": ids[text], "content": text, **_FLAGS, "special": special} for text, special in ADDED_TOKENS
    ]
    bos, first_text, second_text = (
        {"SpecialToken": {"id": BOS, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}},
    )
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, first_text],
        "pair": [bos, first_text, {"SpecialToken": {"id": BOS, "type_id": 1}}, second_text],
        "special_tokens": {BOS: {"id": BOS, "ids": [ids[BOS]], "tokens": [BOS]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    token = {"__type": "AddedToken", **_FLAGS, "normalized": True}
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        **{f"{kind}_token": token | {"content": text} for kind, text in (("bos", BOS), ("eos", EOS), ("pad", EOS))},
        "clean_up_tokenization_spaces": False,
        "legacy": True,
        "model_max_length": 16384,
        "sp_model_kwargs": {},
        "unk_token": None,
        "tokenizer_class": "LlamaTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
