"""The corpus: valid files of every kind, made here, and each past finding by its name."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np
from bench_records import measurement
from gguf_bytes import MALFORMED, small
from report_page import records
from tiny_checkpoint import CONFIGS, shapes, write_checkpoint

from sprat.runtime.arch.attention import CachePlane
from sprat.runtime.cache import Cache, KVCache
from sprat.runtime.prefix.entries import Entries
from sprat.runtime.prefix.saved_state import StateIdentity, write_state

__all__ = ["FINDINGS", "bundle", "seeds", "state_cache", "state_identity"]

_DEEP = 100_000
_DATA = Path(__file__).parents[1] / "tests" / "data"

_LONG_SHARD = b'{"weight_map":{"lm_head.weight":"%s.safetensors"}}' % (b"n" * 300)
_YARN = {"type": "yarn", "factor": 8, "original_max_position_embeddings": 64, "beta_slow": 1.7e308}
_NO_KV_HEADS = (
    b'{"architecture":"qwen2","vocab_size":512,"hidden_size":64,"n_layers":4,"n_heads":4,"n_kv_heads":0,"head_dim":16,'
    b'"intermediate_size":96,"rms_norm_eps":1e-06,"max_context":512,"rope":{"dim":16,"theta":512.0,"interleaved":false,'
    b'"scaling":null},"tied_embeddings":true,"attention_bias":true,"mla":null,"moe":null}'
)


def _config_with(architecture: str, **changes: object) -> bytes:
    return json.dumps({**CONFIGS[architecture], **changes}).encode()


# Past findings: inputs that raised another error than SpratError, hung, or took gigabytes.
FINDINGS: dict[str, dict[str, bytes]] = {
    "config": {
        "nested": b"[" * _DEEP,
        "nested-object": b'{"a":' * _DEEP,
        "not-utf8": b"\xff",
        "yarn-without-a-ramp": _config_with("deepseek2", rope_scaling=_YARN),
        "rope-over-2^31-elements": _config_with("qwen2", head_dim=(1 << 31) - 2),
    },
    "tokenizer": {
        "nested": b"[" * _DEEP,
        "added-token-is-a-number": b'{"model":{"type":"BPE","vocab":{},"merges":[]},"added_tokens":'
        b'[{"id":1,"content":5}]}',
        "added-tokens-is-a-number": b'{"model":{"type":"BPE","vocab":{},"merges":[]},"added_tokens":5}',
    },
    "tokenizer_config": {
        "nested": b'{"a":' * _DEEP,
        "templates-are-numbers": b'{"chat_template":[1]}',
        "template-without-a-name": b'{"chat_template":[{"template":"x"}]}',
        "template-is-a-number": b'{"chat_template":[{"name":"default","template":5}]}',
        "special-token-is-empty": b'{"bos_token":"","eos_token":""}',
        "added-token-is-a-number": b'{"added_tokens_decoder":{"5":{"content":5}}}',
    },
    "manifest": {
        "nested": b"[" * _DEEP,
        "name-of-300": b'{"schema_version":1,"name":"n","artifacts":[{"format":"gguf","file":"%s","plan":"%s"}],'
        b'"files":[{"name":"%s","size_bytes":1,"sha256":"%s"}],"source":{"name":"s","format":"gguf","hash":"h",'
        b'"quantized":false},"spec":{},"recipe":"r","tensor_groups":[],"device":null,"versions":{}}'
        % (b"n" * 300, b"0" * 64, b"n" * 300, b"0" * 64),
    },
    "results": {"nested": b"[" * _DEEP, "nested-line": b'{"schema":1,"a":' + b"[" * _DEEP},
    "compare": {
        "nested": b"[" * _DEEP,
        "a-subnormal-speed": msgspec.json.encode(measurement(samples_tps=(10.0, 5e-324))),
    },
    "device": {"nested": b"a = " + b"[" * _DEEP, "number-of-5000-digits": b"a = " + b"9" * 5000},
    "template": {
        "slices": b"{% set b = 'a' * 100000 %}" + b"{% set x = b[1:] %}" * 200,
        "round": b"{{ 1|round(-1000000000) }}",
        "rfind": b"{{ ('a'*2000000).rfind('ab' ~ 'a'*1000000) }}",
        "strip": b"{{ ('b'*1000000).strip('a'*1000000 ~ 'b') }}",
        "sum": b"{{ ([['a']]*62000)|sum(start=[]) }}",
        "address": b"{{ 'a'.find }}",
    },
    "spec": {"nested": b"[" * _DEEP, "no-kv-heads": _NO_KV_HEADS},
    "onnx": {
        "location-is-not-utf8": bytes.fromhex(
            "080e3a410a100a017712017922084964656e746974791201672a19080110014201776a0e0a086c6f"
            "636174696f6e1202ff7a7001620f0a0179120a0a08080112040a0208014202101c"
        ),
    },
    "cache": {"nested": b"[" * _DEEP},
    "index": {"nested": b"[" * _DEEP, "nested-map": b'{"weight_map":' + b'{"a":' * _DEEP, "name-of-312": _LONG_SHARD},
    "journal": {"nested": b"[" * _DEEP + b"\n", "zeros": bytes(100)},
}


def seeds(target: str) -> dict[str, bytes]:
    """Name -> input: valid ones first, then past findings."""
    return {**_VALID[target](), **FINDINGS.get(target, {})}


def _ggufs() -> dict[str, bytes]:
    malformed = {name: make() for name, (make, _) in MALFORMED.items()}
    return {"student": next(bundle().glob("*.gguf")).read_bytes(), "small": small(), **malformed}


def _templates() -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in sorted((_DATA / "chat").rglob("*.jinja"))}


def _spec() -> bytes:
    return json.dumps(json.loads((bundle() / "manifest.json").read_bytes())["spec"]).encode()


def _results() -> bytes:
    return b"\n".join(msgspec.json.encode(record) for record in (measurement(), *records()))


def _devices() -> dict[str, bytes]:
    profiles = resources.files("sprat.devices") / "profiles"
    return {path.name: path.read_bytes() for path in profiles.iterdir() if path.name.endswith(".toml")}


def _index() -> bytes:
    return json.dumps({"weight_map": dict.fromkeys(shapes(CONFIGS["qwen2"]), "model.safetensors")}).encode()


def _tiktoken() -> bytes:
    return b"".join(b"%s %d\n" % (base64.b64encode(bytes([byte])), byte) for byte in range(256))


def state_cache() -> Cache:
    """A small cache, for saved sessions."""
    return KVCache([CachePlane(2, 4), CachePlane(2, 4)], 3, 8, "f16")


def state_identity() -> StateIdentity:
    """The identity of a model whose cache is :func:`state_cache`."""
    return StateIdentity("m" * 64, "reference", state_cache().geometry)


def _saved_state(*messages: dict[str, str]) -> bytes:
    path = _files().parent / "session"
    rows = tuple(np.ones_like(plane) for plane in state_cache().empty_rows(3))
    write_state(path, state_identity(), [3, 1, 4], [Entries(rows)], messages)
    return path.read_bytes()


_VALID: dict[str, Callable[[], dict[str, bytes]]] = {
    "gguf": _ggufs,
    "safetensors": lambda: {"student": (_files() / "model.safetensors").read_bytes()},
    "config": lambda: {name: json.dumps(config).encode() for name, config in CONFIGS.items()},
    "tokenizer": lambda: {"qwen2": (_files() / "tokenizer.json").read_bytes()},
    "tokenizer_config": lambda: {"qwen2": (_files() / "tokenizer_config.json").read_bytes()},
    "template": _templates,
    "manifest": lambda: {"student": (bundle() / "manifest.json").read_bytes()},
    "onnx": lambda: {"student": (bundle() / "model.onnx").read_bytes()},
    "spec": lambda: {"student": _spec()},
    "results": lambda: {"results": _results()},
    "compare": lambda: {"one": msgspec.json.encode(measurement())},
    "device": _devices,
    "sentencepiece": lambda: {"tiny": (_DATA / "sentencepiece" / "tokenizer.model").read_bytes()},
    "tiktoken": lambda: {"bytes": _tiktoken()},
    "journal": lambda: {"two": b'{"layout":"d","source":"s","journal":1}\n{"tensor":"a","prefix":"0"}\n'},
    "index": lambda: {"one": _index()},
    "saved_state": lambda: {
        "prefix": _saved_state(),
        "session": _saved_state({"role": "user", "content": "Grüße"}),
    },
    "cache": lambda: {"report": b'{"use_extra_bufts":true}'},
}


@cache
def _files() -> Path:
    return write_checkpoint(Path(tempfile.mkdtemp(prefix="sprat-fuzz-seeds-")) / "student", "qwen2")


@cache
def bundle() -> Path:
    """A bundle of a tiny model, as GGUF and ONNX."""
    from sprat.export.pipeline import export

    return export(_files(), _files().parent / "out", quant="int4", formats=("gguf", "onnx")).path
