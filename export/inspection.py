"""Contents and sizes of a bundle, a GGUF, an ONNX model or a checkpoint, from headers alone."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sprat.errors import InputError, TokenizerError
from sprat.export.onnx.stored_weights import stored_weights
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.recognize.end_tokens import end_token_warnings
from sprat.export.write.naming import model_id
from sprat.export.write.tensor_groups import TensorSize, group_tensors
from sprat.progress import ReportProgress, no_progress
from sprat.runtime.arch.attention import LatentAttentionSpec
from sprat.runtime.arch.gguf_keys import llamacpp_differences
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.backends.providers.placement import ProviderUse, provider_use
from sprat.runtime.backends.providers.settings import ProviderSettings
from sprat.runtime.chat.check import template_problems
from sprat.runtime.chat.template_files import StoredTemplates
from sprat.runtime.files.bundle import MANIFEST_NAME, Bundle
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.gguf_spec import spec_of
from sprat.runtime.files.integrity.finite_check import check_finite
from sprat.runtime.files.latent_tensors import split_latent_tensors
from sprat.runtime.files.model_file import bundle_of, model_formats
from sprat.runtime.files.onnx.file import ONNXFile
from sprat.runtime.files.shape_checks import compare_with_spec
from sprat.runtime.generate.sampling_defaults import (
    SamplingDefaults,
    describe_sampling,
    sampling_from_config,
    sampling_from_metadata,
)
from sprat.runtime.tokenizer.hf_files import TokenizerFiles, read_generation_config, read_vocabulary
from sprat.runtime.tokenizer.vocabulary import Vocabulary

__all__ = ["Inspection", "Runtime", "TensorUse", "inspect"]

_F16_BYTES = 2


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
    """A program, whether it loads the file, and why."""

    name: str
    loads: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The result of :func:`inspect`; sizes in bytes, the cache in f16."""

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
    provider: ProviderUse | None = None  # of an ONNX model, where one was asked for


def inspect(
    path: str | Path,
    *,
    check: bool = False,
    provider: str | None = None,
    ignore_config_fields: Collection[str] = (),
    progress: ReportProgress = no_progress,
) -> Inspection:
    """Inspect a bundle, a GGUF file, an ONNX model or a checkpoint folder; weights are read only with ``check``.

    Of a bundle with both formats, the GGUF is described, and a note names the ONNX model.

    Args:
        path: the file or folder.
        check: read every byte of a bundle and compare the hashes of its manifest, and read every block of a GGUF;
            other bytes, and weights that are NaN or Inf, are an error.
        provider: load and run the ONNX model with this execution provider of onnxruntime, ``"webgpu"`` for example,
            in a child process; see :class:`~sprat.runtime.backends.providers.placement.ProviderUse`.
        ignore_config_fields: unknown fields of a checkpoint's ``config.json`` that do not change the forward pass.
        progress: of the hashes, in bytes.

    Raises:
        InputError: ``path`` is none of these, or malformed; or ``check`` and neither a GGUF nor a bundle; or a provider
            and no ONNX model; or fields to ignore and no checkpoint.
        BackendError: the provider is not installed, or does not load the model.
    """
    path = Path(path)
    checked = _check_hashes(path, progress) if check else ()
    found = _inspect(path, ignore_config_fields)
    checked = (*checked, *_check_weights(found, path, bool(checked))) if check else ()
    used = provider_use(_onnx_model(path, found), ProviderSettings.of(provider)) if provider is not None else None
    return replace(found, notes=(*found.notes, *checked), provider=used)


def _inspect(path: Path, ignore_fields: Collection[str]) -> Inspection:
    if path.is_dir() and not (path / MANIFEST_NAME).is_file():
        return _checkpoint(path, ignore_fields)
    if ignore_fields:
        raise InputError(f"{path}: --ignore-config-field needs a checkpoint folder with config.json, this is none")
    if path.is_dir():
        return _bundle(Bundle.open(path))
    return _onnx(path, path, "onnx", ()) if path.suffix == ".onnx" else _gguf(path, path, "gguf", ())


def _check_hashes(path: Path, progress: ReportProgress) -> tuple[str, ...]:
    """Check the bundle at ``path``, or the one that a file belongs to; empty when there is none."""
    bundle = bundle_of(path) if path.is_file() or (path / MANIFEST_NAME).is_file() else None
    if bundle is None:
        return ()
    notes = bundle.check(progress)
    return (f"checked: every file has its hash of the manifest ({len(bundle.manifest.files)})", *notes)


def _check_weights(found: Inspection, path: Path, has_hashes: bool) -> tuple[str, ...]:
    """Check that the weights of a GGUF are finite; another model has its hashes at least."""
    if found.kind == "bundle" and "gguf" in model_formats(path):
        path = Bundle.open(path).artifact("gguf")
    elif found.kind != "gguf" and has_hashes:
        return ()
    elif found.kind != "gguf":
        raise InputError(f"{path}: found {found.kind}, but --check needs a GGUF; `sprat verify` runs the other formats")
    with GGUFFile.open(path) as file:
        check_finite(file, every=True)
    return ("checked: all weights are finite",)


def _onnx_model(path: Path, found: Inspection) -> Path:
    if found.kind == "bundle" and "onnx" in model_formats(path):
        return Bundle.open(path).artifact("onnx")
    if found.kind != "onnx":
        raise InputError(
            f"{path}: a provider needs an ONNX model, found a {found.kind} without one; export --format onnx"
        )
    return path


def _bundle(bundle: Bundle) -> Inspection:
    main, *others = sorted(artifact.format for artifact in bundle.manifest.artifacts)  # the GGUF first
    notes = [
        *bundle.manifest.warnings,
        *(bundle.manifest.pruning.lines() if bundle.manifest.pruning else ()),
        *(bundle.manifest.quality.lines() if bundle.manifest.quality else ()),
        *(f"also contains {format}: sprat inspect {bundle.artifact(format)}" for format in others),
    ]
    inspect_file = _onnx if main == "onnx" else _gguf
    return inspect_file(bundle.artifact(main), bundle.path, "bundle", notes)


def _gguf(file_path: Path, path: Path, kind: str, warnings: Iterable[str]) -> Inspection:
    with GGUFFile.open(file_path) as file:
        spec = spec_of(file)
        tensors = [TensorSize(name, info.type_name, info.n_weights, info.nbytes) for name, info in file.tensors.items()]
        mtp = [f"MTP layers in the file, which sprat does not run: {spec.n_mtp_layers}"] if spec.n_mtp_layers else []
        runtimes = (_own_runtime(spec, file), *_llamacpp_runtimes(spec, file))
        name = file.name
        notes = (
            *warnings,
            *llamacpp_differences(spec),
            *mtp,
            *_tokenizer_notes(file.metadata),
            _sampling_note(sampling_from_metadata(file.metadata)),
            *_template_notes(StoredTemplates.from_metadata(file.metadata)),
        )
    return _inspection(path, kind, name, spec, tensors, runtimes, notes)


def _onnx(file_path: Path, path: Path, kind: str, warnings: Iterable[str]) -> Inspection:
    file = ONNXFile.open(file_path)
    notes = (*warnings, *_folder_notes(file_path.parent, file.spec), *_folder_template_notes(file_path.parent))
    return _inspection(path, kind, file.name, file.spec, stored_weights(file), _onnx_runtimes(file), notes)


def _checkpoint(path: Path, ignore_fields: Collection[str]) -> Inspection:
    checkpoint = Checkpoint.open(path, ignore_fields=ignore_fields)
    tensors = []
    for name, tensor in checkpoint.tensors.items():
        format, nbytes = tensor.stored_size()
        tensors.append(TensorSize(name, format, math.prod(tensor.shape), nbytes))
    problems = checkpoint.problems()
    runtimes = (Runtime("sprat export", not problems, "; ".join(problems) or "a checkpoint; export it to run it"),)
    notes = (*checkpoint.warnings, *_folder_notes(path, checkpoint.spec), *_folder_template_notes(path))
    return _inspection(path, "checkpoint", model_id(path.absolute()), checkpoint.spec, tensors, runtimes, notes)


def _inspection(
    path: Path,
    kind: str,
    name: str,
    spec: ModelSpec,
    tensors: Iterable[TensorSize],
    runtimes: Iterable[Runtime],
    notes: Iterable[str],
) -> Inspection:
    uses = _tensor_uses(tensors)
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
        cache_kind=spec.attention.cache_kind,
        cache_bytes_per_token=_F16_BYTES * spec.cache_elements_per_token,
        tensors=uses,
        runtimes=tuple(runtimes),
        notes=tuple(dict.fromkeys(notes)),  # the manifest has some of them already
    )


def _tensor_uses(tensors: Iterable[TensorSize]) -> tuple[TensorUse, ...]:
    """Tensors by role and format, the largest group first."""
    uses = [
        TensorUse(
            role=group.role,
            format=group.format,
            n_tensors=group.n_tensors,
            n_weights=group.n_weights,
            nbytes=group.size_bytes,
        )
        for group in group_tensors(tensors)
    ]
    return tuple(sorted(uses, key=lambda use: -use.nbytes))


def _own_runtime(spec: ModelSpec, file: GGUFFile) -> Runtime:
    split = split_latent_tensors(file, spec)
    problems = compare_with_spec(spec, {name: info.shape for name, info in split.tensors.items()})
    why = "all tensors present, with the expected shapes"
    if split is not file:
        why += "; attn_kv_b is split in memory when the model is loaded: export or quantize the file to do it once"
    return Runtime("sprat", not problems, "; ".join(problems) or why)


def _llamacpp_runtimes(spec: ModelSpec, file: GGUFFile) -> tuple[Runtime, Runtime]:
    """Upstream llama.cpp, and Ollama, which is built on it."""
    why = f"architecture '{spec.architecture}'"
    if isinstance(spec.attention, LatentAttentionSpec):
        is_split = "blk.0.attn_k_b.weight" in file.tensors
        split = "MLA split into attn_k_b and attn_v_b, needs a build since April 2025"
        unsplit = "attn_kv_b is not split: its cache holds expanded heads; export or quantize the file for MLA"
        why += f", {split if is_split else unsplit}"
    return Runtime("llama.cpp", True, why), Runtime("Ollama", True, why)


def _onnx_runtimes(file: ONNXFile) -> tuple[Runtime, Runtime]:
    """Every model that sprat writes runs in onnxruntime; onnxruntime-genai needs a genai_config.json."""
    described = (file.path.parent / "genai_config.json").is_file()
    operators = file.metadata.get("sprat.operators", "contrib")
    why = file.metadata.get("sprat.requires", ""), f"{operators} operators", f"cache layout '{file.cache}'"
    return (
        Runtime("onnxruntime", True, ", ".join(filter(None, why))),
        Runtime("onnxruntime-genai", described, "genai_config.json found" if described else "no genai_config.json"),
    )


def _tokenizer_notes(metadata: dict[str, Any]) -> list[str]:
    model, pre = (metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if model in {None, "none"}:
        return ["no tokenizer in the file: input is token ids only"]
    template = "with" if metadata.get("tokenizer.chat_template") else "without"
    note = f"tokenizer {model}{f' ({pre})' if pre else ''}, {template} a chat template"
    return [note, _end_note(lambda: Vocabulary.from_metadata(metadata))]


def _folder_notes(folder: Path, spec: ModelSpec) -> Iterator[str]:
    """End tokens and sampling parameters in the tokenizer files of a folder."""
    yield _end_note(lambda: read_vocabulary(TokenizerFiles(folder, spec.vocab_size)))
    with contextlib.suppress(TokenizerError):  # the note before says so
        yield from end_token_warnings(folder, spec.vocab_size)
    try:
        yield _sampling_note(sampling_from_config(read_generation_config(folder), "generation_config.json"))
    except InputError as error:
        yield f"sampling: {error}"


def _end_note(read: Callable[[], Vocabulary]) -> str:
    """The end tokens; a tokenizer that cannot be read is described, not an error: it has no weights."""
    try:
        vocabulary = read()
    except TokenizerError as error:
        return f"the tokenizer cannot be read: {error}"
    tokens = ", ".join(f"{vocabulary.tokens[index]} ({index})" for index in sorted(vocabulary.eog_ids))
    return f"an answer ends with: {tokens or 'no token; set a limit or a stop string'}"


def _sampling_note(defaults: SamplingDefaults) -> str:
    return f"sampling without options: {describe_sampling(defaults)}"


def _template_notes(stored: StoredTemplates) -> list[str]:
    """Problems of the chat template."""
    template = stored.template()
    return [*stored.problems, *(template_problems(template) if template else ())]


def _folder_template_notes(folder: Path) -> list[str]:
    try:
        return _template_notes(StoredTemplates.from_files(TokenizerFiles(folder)))
    except TokenizerError:
        return []  # no tokenizer, or a damaged one: an export names it
