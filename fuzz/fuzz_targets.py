"""The fuzz targets: each gives the bytes to one reader of untrusted files, as a user's call would.

A SpratError is a refusal. Any other exception is a finding, and so is a call that takes too long (:mod:`fuzz_run`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from fuzz_seeds import bundle, state_cache, state_identity
from tiny_checkpoint import write_checkpoint

from sprat.errors import SpratError

__all__ = ["MEMORY", "TARGETS", "remove_files", "run"]

Target = Callable[[bytes], None]

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A folder whose files are in memory, if there is one."""

_FOLDER = Path(tempfile.mkdtemp(prefix="sprat-fuzz-", dir=None if "TMPDIR" in os.environ else MEMORY))
_MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <|im_end|>"}]


def run(name: str, data: bytes) -> bool:
    """Whether the reader of the target ``name`` takes ``data`` to its end.

    Raises:
        Exception: a finding.
    """
    try:
        TARGETS[name](data)
    except SpratError as error:
        if not str(error):
            raise RuntimeError("an error without a message") from error
        return False
    return True


def remove_files() -> None:
    """Delete the files of all targets."""
    shutil.rmtree(_FOLDER, ignore_errors=True)


def _written(name: str, data: bytes) -> Path:
    path = _FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _checkpoint(target: str) -> Path:
    """A valid checkpoint of its own for a target that damages one of its files."""
    folder = _FOLDER / target
    return folder if folder.exists() else write_checkpoint(folder, "qwen2")


def _gguf(data: bytes) -> None:
    from sprat.export.inspection import inspect
    from sprat.runtime.files.gguf import GGUFFile
    from sprat.runtime.tokenizer.tokenizer import Tokenizer

    path = _written("model.gguf", data)
    inspect(path, check=True)
    with GGUFFile.open(path) as file:
        Tokenizer.from_gguf(file.metadata).encode("Hello, world 42")


def _safetensors(data: bytes) -> None:
    from sprat.export.source.checkpoint import Checkpoint

    folder = _checkpoint("safetensors")
    (folder / "model.safetensors").write_bytes(data)
    Checkpoint.open(folder).verify_complete()


def _config(data: bytes) -> None:
    from sprat.export.source.checkpoint import Checkpoint

    folder = _checkpoint("config")
    (folder / "config.json").write_bytes(data)
    Checkpoint.open(folder).problems()


def _in_tokenizer(name: str) -> Target:
    def target(data: bytes) -> None:
        from sprat.export.gguf.tokenizer_keys import tokenizer_metadata

        folder = _checkpoint(name)
        (folder / name).write_bytes(data)
        tokenizer_metadata(folder)

    return target


def _template(data: bytes) -> None:
    from sprat.runtime.chat.template import ChatTemplate

    ChatTemplate(data.decode("utf-8", "replace")).render(_MESSAGES)


def _in_bundle(name: str) -> Path:
    """A valid bundle of its own for a target that damages one of its files."""
    folder = _FOLDER / name
    return folder if folder.exists() else Path(shutil.copytree(bundle(), folder))


def _manifest(data: bytes) -> None:
    from sprat.runtime.files.bundle import Bundle

    folder = _in_bundle("manifest")
    (folder / "manifest.json").write_bytes(data)
    Bundle.open(folder)


def _onnx(data: bytes) -> None:
    from sprat.runtime.files.onnx.file import ONNXFile

    folder = _in_bundle("onnx")
    (folder / "model.onnx").write_bytes(data)
    ONNXFile.open(folder / "model.onnx")


def _results(data: bytes) -> None:
    from sprat.devices.report.build import make_report

    make_report([_written("results.jsonl", data)], _FOLDER / "report.html")


def _compare(data: bytes) -> None:
    from sprat.devices.bench.compare import compare
    from sprat.devices.bench.results import read_results

    records = read_results(_written("results.jsonl", data))
    compare(records, records, 0.95)


def _device(data: bytes) -> None:
    from sprat.devices.profile import parse_profile

    name = re.search(rb'^name = "(.*)"$', data, re.MULTILINE)
    parse_profile(name[1].decode("utf-8", "replace") if name else "device", data)


def _sentencepiece(data: bytes) -> None:
    from sprat.runtime.tokenizer.sentencepiece import read_sentencepiece

    read_sentencepiece(_written("tokenizer.model", data))


def _tiktoken(data: bytes) -> None:
    from sprat.runtime.tokenizer.tiktoken import read_tiktoken

    read_tiktoken(_written("tiktoken.model", data))


def _journal(data: bytes) -> None:
    from sprat.export.write.journal import Journal

    with Journal.open(_written("model.gguf.journal", data)) as journal:
        assert journal.head is not None or not journal.finished


def _cache(data: bytes) -> None:
    from sprat.runtime.backends.llamacpp_probe import ProbeReport
    from sprat.runtime.backends.probe_cache import recall

    recall(_written("probe.json", data), ProbeReport)


def _index(data: bytes) -> None:
    from sprat.export.source.checkpoint import Checkpoint

    folder = _checkpoint("index")
    (folder / "model.safetensors.index.json").write_bytes(data)
    Checkpoint.open(folder)


def _spec(data: bytes) -> None:
    from sprat.runtime.arch.spec_json import spec_from_json

    spec_from_json(data.decode("utf-8", "replace"), "sprat.spec")


def _saved_state(data: bytes) -> None:
    """The digest of the header is made to fit: no mutation would reach behind it."""
    from sprat.runtime.prefix.saved_state import read_state, read_tokens

    size = int.from_bytes(data[12:16], "little")
    data = data[:16] + hashlib.sha256(data[48 : 48 + size]).digest() + data[48:]
    path = _written("session", data)
    read_tokens(path, state_identity())
    read_state(path, state_identity(), state_cache())


TARGETS: dict[str, Target] = {
    "gguf": _gguf,
    "safetensors": _safetensors,
    "config": _config,
    "tokenizer": _in_tokenizer("tokenizer.json"),
    "tokenizer_config": _in_tokenizer("tokenizer_config.json"),
    "template": _template,
    "manifest": _manifest,
    "onnx": _onnx,
    "spec": _spec,
    "results": _results,
    "compare": _compare,
    "device": _device,
    "sentencepiece": _sentencepiece,
    "tiktoken": _tiktoken,
    "journal": _journal,
    "index": _index,
    "cache": _cache,
    "saved_state": _saved_state,
}
