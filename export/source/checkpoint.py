"""``Checkpoint``: the source of an export, a folder or a GGUF, as canonical tensors that are read in chunks.

::

    source = Checkpoint.open("DeepSeek-V2-Lite-Chat")      # a folder of safetensors, or a GGUF
    source.verify_complete()                               # every tensor present, of the expected shape, finite
    for tensor in source.tensors.values():
        for chunk in tensor.chunks():                      # packed rows in tensor.format, a few MiB at a time
            ...

Opening reads the config and the headers. Weights are read when they are requested, and not kept.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from sprat.errors import CheckpointError
from sprat.export.source.config_file import CONFIG, checkpoint_spec, config_bytes, parse_config
from sprat.export.source.file import FileTensor, SourceFile
from sprat.export.source.fp8 import F8_E4M3, SCALE_SUFFIX, scale_shape, stored_rows
from sprat.export.source.fused_experts import split_experts
from sprat.export.source.gguf_tensors import gguf_tensors
from sprat.export.source.lora import Adapter, AdapterOption, check_adapters, merged
from sprat.export.source.range_check import check_range
from sprat.export.source.recognize.folder_kinds import refuse_pointers
from sprat.export.source.recognize.left_out import EMBEDDINGS, HEAD, kept_mtp_note, leave_out, mtp_of_gguf
from sprat.export.source.recognize.plain_names import check_known_names, plain_names
from sprat.export.source.recognize.tensor_kinds import refuse_known_tensors
from sprat.export.source.rows import RowSource
from sprat.export.source.scan import FileScan, scan_files
from sprat.export.source.shards import find_shards, read_shards, unread_note
from sprat.export.source.tensor import ComputedRow, SourceTensor
from sprat.export.source.tensor_map import Origin, gguf_map, mtp_map, of_experts, replaced_in_gguf, tensor_map
from sprat.files import MAX_INPUT_BYTES, file_sha256
from sprat.progress import ReportProgress, no_progress
from sprat.quant.formats import BlockFormat
from sprat.runtime.arch.fp8_config import fp8_block
from sprat.runtime.arch.rope import FrequencyFactors
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import ROPE_FREQS, has_experts, mtp_tensors
from sprat.runtime.files.bundle import MergedAdapter
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.gguf_checks import refuse_scales, vocabulary_problems
from sprat.runtime.files.gguf_spec import spec_of
from sprat.runtime.files.shape_checks import compare_shapes, summarize
from sprat.runtime.weights import Weight

__all__ = ["Checkpoint"]

_UNTIED = "the adapter changes the embeddings or the output head, which the model ties: both are kept apart"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tiktoken.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A source of weights under canonical names (a ``WeightSource``).

    Attributes:
        path: the folder or the GGUF file; of a split GGUF the first part.
        spec: the architecture and its dimensions.
        config: the JSON object in ``config.json``; empty for a GGUF.
        metadata: the metadata keys of a GGUF; empty for a folder.
        files: every file that contains weights or the config.
        notes: what opening found that the user should know.
        ignored_fields: unknown fields of the config that the user declared harmless.
        adapters: LoRA adapters that are merged into the weights.
        experts: MoE layer -> the routed experts that are read; empty for all of them.
        whole: of a checkpoint with fewer experts, the one with all.
    """

    path: Path
    spec: ModelSpec
    config: Mapping[str, Any]
    metadata: Mapping[str, Any]
    files: tuple[SourceFile, ...]
    _stored: Mapping[str, FileTensor]  # by the source's names, without ignored tensors
    _origins: Mapping[str, Origin]
    notes: tuple[str, ...] = ()
    ignored_fields: tuple[str, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    _texts: Mapping[str, tuple[SourceFile, str]] = field(default_factory=dict)  # of the tokenizer, with SHA-256
    _config_sha256: str = ""
    experts: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    whole: Self | None = None
    _scans: dict[SourceFile, FileScan] = field(default_factory=dict)  # of all files; empty before the one pass

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        ignore_fields: Collection[str] = (),
        adapters: Sequence[AdapterOption] = (),
    ) -> Self:
        """Open a Hugging Face model directory or a GGUF file.

        Only config and headers are read, and two tensors of which one is left out if they are equal.

        Args:
            path: the folder or file.
            ignore_fields: unknown fields of ``config.json`` that do not change the forward pass.
            adapters: LoRA adapters to merge into the weights of a folder, in this order.

        Raises:
            CheckpointError: ``path`` is neither of the two, its weights are pickled, or a shard is missing, truncated
                or outside the folder.
            ConfigError: the config is not a JSON object, or its architecture or a field is not supported.
            ModelFileError: the GGUF is malformed.
        """
        path = Path(path)
        if path.is_dir():
            return cls._open_folder(path, ignore_fields, adapters)
        if not path.exists():
            raise CheckpointError(
                f"{path}: no such file or directory; sprat downloads nothing: download the model first, "
                "for example with `hf download`, and pass its folder"
            )
        if path.suffix == ".safetensors":
            raise CheckpointError(f"{path}: weights without a config; pass the folder that also contains {CONFIG}")
        refuse_pointers(path)
        if ignore_fields or adapters:
            option = "--ignore-config-field" if ignore_fields else "--lora"
            raise CheckpointError(f"{path}: {option} needs a checkpoint folder with {CONFIG}, and this is a file")
        return cls._open_gguf(path)

    @classmethod
    def _open_folder(cls, path: Path, ignore_fields: Collection[str], options: Sequence[AdapterOption]) -> Self:
        refuse_pointers(path)
        content = config_bytes(path)
        config, config_sha256 = parse_config(content, path / CONFIG), hashlib.sha256(content).hexdigest()
        spec = checkpoint_spec(config, path, ignore_fields)
        adapters = tuple(map(Adapter.open, options))
        shards = find_shards(path)
        stored = plain_names(read_shards(shards), path)
        refuse_known_tensors(path, stored)
        stored = split_experts(stored)
        unties = spec.tied_embeddings and any(adapter.unties() for adapter in adapters)
        if unties and HEAD not in stored and EMBEDDINGS in stored:
            stored[HEAD] = stored[EMBEDDINGS]
        for adapter in adapters:
            stored |= adapter.replaced
        kept = leave_out(stored, spec, config, lambda name: stored_rows(stored, name, config), keep_head=unties)
        check_adapters(path, adapters, kept.tensors)
        mtp = mtp_map(kept.spec).items()
        origins = tensor_map(kept.spec) | {name: it for name, it in mtp if kept.tensors.keys() >= set(it.sources)}
        expected = (source for origin in origins.values() for source in origin.sources)
        check_known_names(kept.tensors, expected, path, spec.architecture)
        files = (SourceFile.find(path / CONFIG), *shards, *(file for adapter in adapters for file in adapter.files))
        notes = (
            *kept.notes,
            *unread_note(path, shards),
            *(note for adapter in adapters for note in adapter.notes()),
            *([_UNTIED] if unties else []),
        )
        ignored = tuple(sorted(ignore_fields))
        texts = _tokenizer_files(path)
        tensors = kept.tensors
        return cls(path, kept.spec, config, {}, files, tensors, origins, notes, ignored, adapters, texts, config_sha256)

    @classmethod
    def _open_gguf(cls, path: Path) -> Self:
        SourceFile.find(path)  # of a path that is no file, the message is about sources
        with GGUFFile.open(path) as gguf:
            spec = spec_of(gguf)
            files, tensors = gguf_tensors(gguf)
            refuse_scales(tensors, gguf.path)
            shapes = {name: tensor.shape for name, tensor in tensors.items()}
            replaced = replaced_in_gguf(spec, shapes)
            spec, left_out, notes = mtp_of_gguf(spec, shapes)
            stored = {name: tensor for name, tensor in tensors.items() if name not in replaced | left_out}
            return cls(gguf.path, spec, {}, gguf.metadata, files, stored, gguf_map(spec, shapes), notes)

    def with_experts(self, experts: Mapping[int, tuple[int, ...]]) -> Self:
        """The same source with fewer routed experts; layers of multi-token prediction are left out.

        Args:
            experts: MoE layer -> ids of its experts in ascending order, as many in every layer.
        """
        assert self.spec.moe is not None, "only called for an MoE"
        moe = replace(self.spec.moe, n_routed_experts=len(next(iter(experts.values()))))
        mtp = self._origins.keys() & mtp_tensors(self.spec)
        origins = {name: _of_experts(name, it, experts) for name, it in self._origins.items() if name not in mtp}
        unused = {source for name in mtp for source in self._origins[name].sources}
        return replace(
            self,
            spec=replace(self.spec, moe=moe, n_mtp_layers=0),
            _origins=origins,
            _stored={name: tensor for name, tensor in self._stored.items() if name not in unused},
            notes=tuple(note for note in self.notes if note != kept_mtp_note(len(mtp))),
            experts=experts,
            whole=self,
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name -> shape, without tensors whose sources are missing."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    @functools.cached_property
    def tensors(self) -> dict[str, SourceTensor]:
        """Canonical name -> tensor, in canonical order, without tensors whose sources are missing."""
        tensors = {
            name: SourceTensor(name, origin.shape, origin.build([self._rows(source) for source in origin.sources]))
            for name, origin in self._origins.items()
            if all(source in self._stored for source in origin.sources)
        }
        if isinstance(self.spec.rope.scaling, FrequencyFactors) and ROPE_FREQS not in tensors:
            factors = np.asarray(self.spec.rope.scaling.factors, np.float32)
            tensors[ROPE_FREQS] = SourceTensor(ROPE_FREQS, factors.shape, ComputedRow(factors))
        return tensors

    @property
    def warnings(self) -> list[str]:
        """Warnings about this source for the user and the manifest."""
        warnings = list(self.notes)
        if self.ignored_fields:
            warnings.append(f"fields of {CONFIG} that were ignored on request: {', '.join(self.ignored_fields)}")
        return [*warnings, *self.quantized_warnings]

    @property
    def quantized_warnings(self) -> list[str]:
        """The warning about quantizing a quantized source again; none for another source."""
        quantized = Counter(tensor.format.name for tensor in self._stored.values() if tensor.format.block_size > 1)
        if not quantized:
            return []
        counts = ", ".join(f"{count} tensors in {name}" for name, count in quantized.most_common())
        return [f"the source is quantized ({counts}): quantizing again adds to its error"]

    def tokenizer_files(self) -> dict[str, bytes]:
        """Name -> content of the tokenizer files, chat template and generation config that exist.

        Raises:
            ExportError: one changed since the source was opened.
        """
        found = {}
        for name, (file, sha256) in self._texts.items():
            file.check_unchanged()
            found[name] = file.read(0, file.nbytes).tobytes()
            if hashlib.sha256(found[name]).hexdigest() != sha256:
                raise file.changed("it has another SHA-256 than when it was opened")
        return found

    def names(self) -> Iterable[str]:
        """Canonical names, in canonical order."""
        return self.tensors.keys()

    def __contains__(self, name: object, /) -> bool:
        return name in self.tensors

    def weight(self, name: str) -> Weight:
        """The whole weight ``name``.

        Raises:
            CheckpointError: the source has no such tensor.
            ExportError: the source changed since it was opened.
        """
        if name not in self.tensors:
            raise CheckpointError(f"{self.path}: has no tensor {name!r}")
        return self.tensors[name].weight()

    def verify_complete(self, progress: ReportProgress = no_progress) -> None:
        """Read every file once and check all tensors, so that an export does not fail midway because of its source.

        Args:
            progress: called after each chunk; see :func:`~sprat.export.source.scan.scan_files`.

        Raises:
            CheckpointError: tensors are missing, unexpected, of another size, or contain NaN or Inf; one message lists
                them all.
            ExportError: the source changed since it was opened.
        """
        nonfinite = [repr(name) for scan in self._scan(progress).values() for name in scan.nonfinite]
        self._raise_problems(
            [f"{len(nonfinite)} with NaN or infinite weights: {summarize(nonfinite)}"] if nonfinite else []
        )

    def check_headers(self) -> None:
        """Check names and shapes of all tensors, without reading one.

        Raises:
            CheckpointError: tensors are missing, unexpected or of another size.
        """
        self._raise_problems([])

    def _raise_problems(self, further: Sequence[str]) -> None:
        if problems := [*self.problems(), *further]:
            raise CheckpointError(
                f"{self.path}: tensors do not make a {self.spec.architecture} model of {self.spec.n_layers} layers: "
                f"{'. '.join(problems)}. Complete or repair the checkpoint"
            )

    def hash(self) -> str:
        """SHA-256 of the source.

        Of a GGUF, the SHA-256 of the file; of a folder or a split GGUF, that of the output of ``sha256sum`` for config
        and shards or for the parts, sorted by name, where files of an adapter are named with their folder and scale.
        Shares the pass over the files with :meth:`verify_complete`.
        """
        digests = [scan.sha256 for scan in self._scan().values()]
        if len(digests) == 1:
            return digests[0]
        lines = sorted((self._hashed_name(file), scan.sha256) for file, scan in self._scan().items())
        return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in lines).encode()).hexdigest()

    def content_hash(self) -> str:
        """:meth:`hash`, of a checkpoint with fewer experts that of the source and of their ids."""
        if not self.experts:
            return self.hash()
        return hashlib.sha256(f"{self.hash()} experts {sorted(self.experts.items())}".encode()).hexdigest()

    def _hashed_name(self, file: SourceFile) -> str:
        for number, adapter in enumerate(self.adapters):
            if file in adapter.files:
                return f"lora {number} {adapter.option.scale!r} {file.path.name}"
        return file.path.name

    def check_range(self, targets: Iterable[tuple[SourceTensor, BlockFormat]]) -> None:
        """Check that every tensor's weights are within the range of the format that it is written in.

        Shares the pass over the files with :meth:`verify_complete`.

        Raises:
            FormatError: a weight would become infinite or be clipped; the message names tensor, value and a format that
                holds it.
        """
        scans = self._scan()
        check_range(self.path, targets, lambda tensor: scans[tensor.file].bounds[tensor.name])

    def merged_adapters(self) -> tuple[MergedAdapter, ...]:
        """The adapters for the manifest."""
        scans = self._scan()
        return tuple(
            MergedAdapter(name=adapter.name, scale=adapter.option.scale, sha256=scans[adapter.files[-1]].sha256)
            for adapter in self.adapters
        )

    def check_unchanged(self) -> None:
        """Compare size, times and inode of every file with those at opening, the tokenizer files among them.

        Raises:
            ExportError: a file changed.
        """
        for file in (*self.files, *(file for file, _ in self._texts.values())):
            file.check_unchanged()

    def _scan(self, progress: ReportProgress = no_progress) -> Mapping[SourceFile, FileScan]:
        """Result of the one pass over the files."""
        if not self._scans:
            tensors: dict[SourceFile, list[FileTensor]] = {file: [] for file in self.files}
            of_adapters = (tensor for adapter in self.adapters for tensor in adapter.tensors)
            for tensor in {*self._stored.values(), *of_adapters}:
                tensors[tensor.file].append(tensor)
            self._scans.update(scan_files(tensors, progress))
            for file, scan in self._scans.items():
                if file.path == self.path / CONFIG and scan.sha256 != self._config_sha256:
                    raise file.changed("it has another SHA-256 than when it was opened")
        return self._scans

    def _rows(self, source: str) -> RowSource:
        deltas = [adapter.deltas[source] for adapter in self.adapters if source in adapter.deltas]
        return merged(stored_rows(self._stored, source, self.config), deltas)

    def problems(self) -> list[str]:
        """Tensors that are missing, unexpected or of another size, from the headers; empty for a complete model."""
        found = {name: tensor.shape for name, tensor in self._stored.items()}
        expected = {source: origin.source_shape for origin in self._origins.values() for source in origin.sources}
        problems = compare_shapes(found, expected | dict(self._expected_scales(expected)))
        return problems + list(vocabulary_problems(self.metadata, self.spec.vocab_size))

    def _expected_scales(self, expected: Iterable[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
        for source in expected:
            stored = self._stored.get(source)
            if stored and stored.format is F8_E4M3:
                scale = self._stored.get(name := source + SCALE_SUFFIX)
                block = fp8_block(self.config)
                is_single = block is None and scale is not None and math.prod(scale.shape) == 1
                yield name, scale.shape if scale and is_single else scale_shape(stored.shape, block)


def _of_experts(name: str, origin: Origin, experts: Mapping[int, tuple[int, ...]]) -> Origin:
    """The origin of the tensor ``name`` with these experts of its layer."""
    if not has_experts(name):
        return origin
    return of_experts(origin, experts[int(name.split(".")[1])])


def _tokenizer_files(folder: Path) -> dict[str, tuple[SourceFile, str]]:
    """The tokenizer files in ``folder``, as they are now.

    Raises:
        OSError: one cannot be read, or is larger than a file that is read whole may be.
    """
    paths = {name: folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()}
    return {name: (SourceFile.find(path), file_sha256(path, MAX_INPUT_BYTES)) for name, path in paths.items()}
