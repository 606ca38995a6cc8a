"""What a file is and where its bytes go: a bundle, a GGUF, an ONNX model or a checkpoint, from headers alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sprat.errors import InputError
from sprat.export.onnx.stored_weights import stored_weights
from sprat.export.source.checkpoint import Checkpoint
from sprat.runtime.arch.gguf_keys import spec_from_metadata
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import expected_tensors, tensor_role
from sprat.runtime.files.bundle import MANIFEST_NAME, Bundle
from sprat.runtime.files.finite_check import check_blocks
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.gguf_checks import compare_shapes
from sprat.runtime.files.onnx import ONNXFile

__all__ = ["Inspection", "Runtime", "TensorUse", "inspect"]

_LATENT_F16_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorUse:
    """All tensors of one role in one format, over all layers."""

    role: str
    format: str
    n_tensors: int
    n_weights: int
    nbytes: int

    @property
    def bits_per_weight(self) -> float:
        """Scales included."""
        return 8 * self.nbytes / self.n_weights


@dataclass(frozen=True, slots=True)
class Runtime:
    """A program that may load the file, and why it would or would not."""

    name: str
    loads: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The answer of :func:`inspect`; sizes in bytes, the cache in f16."""

    path: Path
    kind: str  # "bundle", "gguf", "onnx" or "checkpoint"
    name: str
    architecture: str
    n_layers: int
    n_weights: int
    nbytes: int
    bits_per_weight: float
    max_context: int
    cache_kind: str  # "latent" or "keys and values"
    cache_bytes_per_token: int
    tensors: tuple[TensorUse, ...]
    runtimes: tuple[Runtime, ...]
    notes: tuple[str, ...]


def inspect(path: str | Path, *, check: bool = False) -> Inspection:
    """Look at a bundle, a GGUF file, an ONNX model or a checkpoint folder; no weight is read without ``check``.

    Of a bundle that holds both formats, the GGUF is shown, and a note names the ONNX model.

    Args:
        path: what to look at.
        check: read every block of a GGUF, and refuse one that holds weights which are no numbers.

    Raises:
        InputError: it is none of them, or damaged; or ``check`` of what is no GGUF.
    """
    path = Path(path)
    found = _look(path)
    return _checked(found, path) if check else found


def _look(path: Path) -> Inspection:
    if (path / MANIFEST_NAME).is_file():
        return _bundle(Bundle.open(path))
    if path.is_dir():
        return _checkpoint(path)
    return _onnx(path, path, "onnx", ()) if path.suffix == ".onnx" else _gguf(path, path, "gguf", ())


def _checked(found: Inspection, path: Path) -> Inspection:
    if found.kind == "bundle":
        path = Bundle.open(path).artifact("gguf")
    elif found.kind != "gguf":
        raise InputError(
            f"{path}: found a model of kind {found.kind}, expected a GGUF to check; `sprat verify` runs others"
        )
    with GGUFFile.open(path) as file:
        check_blocks(file, every=True)
    return replace(found, notes=(*found.notes, "checked: every weight is a finite number"))


def _bundle(bundle: Bundle) -> Inspection:
    main, *others = sorted(artifact.format for artifact in bundle.manifest.artifacts)  # the GGUF first
    notes = [
        *bundle.manifest.warnings,
        *(f"also holds {form}: sprat inspect {bundle.artifact(form)}" for form in others),
    ]
    look = _onnx if main == "onnx" else _gguf
    return look(bundle.artifact(main), bundle.path, "bundle", notes)


def _gguf(file_path: Path, path: Path, kind: str, warnings: Iterable[str]) -> Inspection:
    with GGUFFile.open(file_path) as file:
        shapes = {name: info.shape for name, info in file.tensors.items()}
        spec = spec_from_metadata(file.metadata, file)
        stored = [(name, info.type_name, info.n_weights, info.nbytes) for name, info in file.tensors.items()]
        runtimes = (_own_runtime(spec, shapes), *_llamacpp_runtimes(spec, shapes))
        name = str(file.metadata.get("general.name", file_path.stem))
        notes = (*warnings, *_tokenizer_notes(file.metadata))
    return _inspection(path, kind, name, spec, stored, runtimes, notes)


def _onnx(file_path: Path, path: Path, kind: str, warnings: Iterable[str]) -> Inspection:
    file = ONNXFile.open(file_path)
    return _inspection(path, kind, file.name, file.spec, list(stored_weights(file)), _onnx_runtimes(file), warnings)


def _checkpoint(path: Path) -> Inspection:
    checkpoint = Checkpoint.open(path)
    stored = []
    for name, tensor in checkpoint.tensors.items():
        nbytes = tensor.rows.n_rows * tensor.format.row_bytes(tensor.rows.n_columns)
        stored.append((name, tensor.format.name, math.prod(tensor.shape), nbytes))
    runtimes = (Runtime("sprat export", True, "a source; export it before running it"),)
    return _inspection(path, "checkpoint", path.resolve().name, checkpoint.spec, stored, runtimes, checkpoint.warnings)


def _inspection(
    path: Path,
    kind: str,
    name: str,
    spec: ModelSpec,
    stored: list[tuple[str, str, int, int]],
    runtimes: Iterable[Runtime],
    notes: Iterable[str],
) -> Inspection:
    uses = _group(stored)
    n_weights, nbytes = sum(use.n_weights for use in uses), sum(use.nbytes for use in uses)
    return Inspection(
        path=path,
        kind=kind,
        name=name,
        architecture=spec.architecture,
        n_layers=spec.n_layers,
        n_weights=n_weights,
        nbytes=nbytes,
        bits_per_weight=8 * nbytes / n_weights,
        max_context=spec.max_context,
        cache_kind="latent" if spec.mla else "keys and values",
        cache_bytes_per_token=_LATENT_F16_BYTES * spec.cache_numbers_per_token,
        tensors=uses,
        runtimes=tuple(runtimes),
        notes=tuple(notes),
    )


def _group(stored: Iterable[tuple[str, str, int, int]]) -> tuple[TensorUse, ...]:
    """Tensors by role and format, the largest group first."""
    groups: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for name, format_name, n_weights, nbytes in stored:
        groups.setdefault((tensor_role(name), format_name), []).append((n_weights, nbytes))
    uses = [
        TensorUse(
            role=role,
            format=format_name,
            n_tensors=len(sizes),
            n_weights=sum(n_weights for n_weights, _ in sizes),
            nbytes=sum(nbytes for _, nbytes in sizes),
        )
        for (role, format_name), sizes in groups.items()
    ]
    return tuple(sorted(uses, key=lambda use: -use.nbytes))


def _own_runtime(spec: ModelSpec, shapes: dict[str, tuple[int, ...]]) -> Runtime:
    problems = compare_shapes(shapes, expected_tensors(spec))
    return Runtime("sprat", not problems, "; ".join(problems) or "every tensor is there, in the right shape")


def _llamacpp_runtimes(spec: ModelSpec, shapes: dict[str, tuple[int, ...]]) -> tuple[Runtime, Runtime]:
    """Stock llama.cpp and Ollama, which is built on it."""
    loads, why = True, f"architecture '{spec.architecture}'"
    if spec.mla:
        loads = "blk.0.attn_k_b.weight" in shapes
        split = "MLA split into attn_k_b and attn_v_b, builds since April 2025"
        why += f", {split}" if loads else ", but the old unsplit attn_kv_b: export it again for current builds"
    return Runtime("llama.cpp", loads, why), Runtime("Ollama", loads, why)


def _onnx_runtimes(file: ONNXFile) -> tuple[Runtime, Runtime]:
    """What sprat writes runs in onnxruntime; in onnxruntime-genai only what its own file describes."""
    described = (file.path.parent / "genai_config.json").is_file()
    operators = file.metadata.get("sprat.operators", "contrib")
    return (
        Runtime("onnxruntime", True, f"{operators} operators, cache of the form '{file.cache}'"),
        Runtime("onnxruntime-genai", described, "genai_config.json is there" if described else "no genai_config.json"),
    )


def _tokenizer_notes(metadata: dict[str, Any]) -> list[str]:
    model, pre = (metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if model in {None, "none"}:
        return ["no tokenizer in the file: it takes token ids only"]
    template = "with" if metadata.get("tokenizer.chat_template") else "without"
    return [f"tokenizer {model}{f' ({pre})' if pre else ''}, {template} a chat template"]
