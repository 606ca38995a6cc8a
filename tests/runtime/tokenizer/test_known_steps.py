"""A tokenizer.json from a stranger: only known steps run, and what the library does is never worse than an error."""

import json
import resource
import time

import pytest
import tokenizers
from tiny_vocabulary import write_byte_level

from sprat.errors import TokenizerError
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.runtime.tokenizer.known_steps import check_steps
from sprat.runtime.tokenizer.library_engine import library_errors
from sprat.runtime.tokenizer.tokenizer import Tokenizer

GROW = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
FILL = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
REDOS = {"type": "Split", "pattern": {"Regex": "(a|a)*$"}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
SPACE = "\u2581"
PREPEND = {"type": "Prepend", "prepend": SPACE}
UNDERSCORES = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
METASPACE = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False}
SPACES = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
TEMPLATE = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": []}


def sequence(name, *steps):
    return {"type": "Sequence", name: list(steps)}


def nested(depth):
    entry = {"type": "NFC"}
    for _ in range(depth):
        entry = sequence("normalizers", entry)
    return entry


HOSTILE = {
    "grows": {"normalizer": sequence("normalizers", *[GROW] * 40)},
    "fills": {"normalizer": sequence("normalizers", *[FILL] * 4)},
    "prepends": {"normalizer": sequence("normalizers", *[{"type": "Prepend", "prepend": "a" * 10**6}] * 9)},
    "prepends spaces": {"normalizer": sequence("normalizers", *[PREPEND] * 10_000)},
    "regular expression": {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a|a)*$"}, "content": ""}},
    "panics": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "lower case": {"normalizer": {"type": "Lowercase"}},
    "nested": {"normalizer": nested(90)},
    "no step": {"normalizer": "NFC"},
    "a number": {"normalizer": sequence("normalizers", 5)},
    "an unknown step": {"normalizer": {"type": "Sequence"} | {"normalizers": [{"type": "Nothing"}]}},
    "backtracks": {"pre_tokenizer": sequence("pretokenizers", REDOS, BYTES)},
    "no pre-tokenizer": {"pre_tokenizer": None},
    "processor": {"post_processor": {"type": "RobertaProcessing", "sep": ["a", 1], "cls": ["b", 2]}},
    "empty template": {"post_processor": {"type": "TemplateProcessing", "single": [{}], "pair": []}},
    "template of text": {"post_processor": {"type": "TemplateProcessing", "single": "$A", "pair": "$A"}},
    "decoder": {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}},
    "decoder that grows": {"decoder": {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}},
    "deleting decoder": {"decoder": {"type": "Strip", "content": "a", "start": 9, "stop": 9}},
}
KNOWN = {
    "DeepSeek-V3": {"normalizer": sequence("normalizers"), "post_processor": BYTES, "decoder": BYTES},
    "Qwen2": {"normalizer": {"type": "NFC"}, "post_processor": BYTES, "decoder": BYTES},
    "Llama 3": {"normalizer": None, "post_processor": sequence("processors", BYTES, TEMPLATE), "decoder": BYTES},
    "without decoder": {"normalizer": None, "post_processor": None, "decoder": None},
}
SENTENCEPIECE = {
    "Llama 2": (
        sequence("normalizers", PREPEND, UNDERSCORES),
        None,
        sequence("decoders", SPACES, {"type": "ByteFallback"}, {"type": "Fuse"}, STRIP),
    ),
    "Llama 2, saved again": (None, METASPACE, {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always"}),
    "Gemma": (
        UNDERSCORES,
        {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        sequence("decoders", SPACES, {"type": "ByteFallback"}, {"type": "Fuse"}),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_byte_level(tmp_path_factory.mktemp("deepseek-v3"), "deepseek-v3")


@pytest.fixture(scope="module")
def document(folder):
    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("where", ["checkpoint", "gguf"])
def test_unknown_steps_are_refused_at_once(folder, document, tmp_path, where, change):
    changed = json.dumps(document | change)
    metadata = tokenizer_metadata(folder) | {"tokenizer.huggingface.json": changed}
    (tmp_path / "tokenizer.json").write_text(changed, encoding="utf-8")
    started = time.thread_time()
    with pytest.raises(TokenizerError, match=r"pre-tokenizer has no name|has the step|expected a step"):
        Tokenizer.from_gguf(metadata) if where == "gguf" else Tokenizer.from_file(tmp_path)
    assert time.thread_time() - started < 5


@pytest.mark.parametrize("steps", KNOWN.values(), ids=KNOWN)
def test_the_steps_of_published_byte_level_tokenizers_are_known(document, steps):
    check_steps(document | steps, "tokenizer.json")
    tokenizers.Tokenizer.from_str(json.dumps(document | steps | {"post_processor": None}))


@pytest.mark.parametrize("steps", SENTENCEPIECE.values(), ids=SENTENCEPIECE)
def test_the_steps_of_published_sentencepiece_tokenizers_are_known(steps):
    sections = dict(zip(("normalizer", "pre_tokenizer", "decoder"), steps, strict=True))
    model = {"type": "BPE", "byte_fallback": True, "vocab": {}, "merges": []}
    check_steps({"model": model} | sections, "tokenizer.json")
    tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model} | sections))


@pytest.mark.parametrize("name", ["continuing_subword_prefix", "end_of_word_suffix"])
def test_parts_of_words_are_refused(document, name):
    with pytest.raises(TokenizerError, match=f"{name} is '##', expected none"):
        check_steps(document | {"model": document["model"] | {name: "##"}}, "tokenizer.json")


def test_padding_and_truncation_do_not_reach_the_library(folder, document, tmp_path):
    padding = {"strategy": {"Fixed": 10**6}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    padding |= {"pad_type_id": 0, "pad_token": "a"}
    cut = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    changed = document | {"padding": padding, "truncation": cut}
    (tmp_path / "tokenizer.json").write_text(json.dumps(changed), encoding="utf-8")
    text = "three words here"
    assert Tokenizer.from_file(tmp_path).encode(text) == Tokenizer.from_file(folder).encode(text)


def test_every_error_of_the_library_is_a_tokenizer_error():
    for broken in ({"type": "Precompiled", "precompiled_charsmap": "AAAA"}, {"type": "Nothing"}):
        model = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
        text = json.dumps({"version": "1.0", "added_tokens": [], "normalizer": broken, "model": model})
        with pytest.raises(TokenizerError, match="cannot be built"), library_errors("the tokenizer cannot be built"):
            tokenizers.Tokenizer.from_str(text).encode("abc")


def test_an_interrupt_is_no_error_of_the_library():
    with pytest.raises(KeyboardInterrupt), library_errors("the text cannot be encoded"):
        raise KeyboardInterrupt


def sentencepiece_metadata(tokens):
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *tokens],
        "tokenizer.ggml.token_type": [2, 3, 3] + [1] * len(tokens),
        "tokenizer.ggml.scores": [0.0] * (3 + len(tokens)),
    }


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["a" * n for n in range(1, 1025)], "longer than those of a vocabulary"),
        ([chr(0x4E00 + i) * n for i in range(1000) for n in range(1, 33)], "split into each other in more than 8 ways"),
    ],
)
def test_a_vocabulary_of_runs_is_refused_before_it_takes_memory(tokens, message):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_gguf(sentencepiece_metadata(tokens))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


def test_a_run_beside_other_tokens_is_a_vocabulary():
    tokens = ["\n" * n for n in range(1, 32)] + [f"{a}{b}" for a in "abcdef" for b in "ghijkl"] + list("abcdefghijkl")
    tokenizer = Tokenizer.from_gguf(sentencepiece_metadata(tokens) | {"tokenizer.ggml.add_space_prefix": False})
    ids = tokenizer.encode("\n" * 40 + "ag")
    assert tokenizer.decode(ids) == "\n" * 40 + "ag"
    assert len(ids) < 10
