"""LoRA adapters in PEFT's layout (arXiv 2106.09685), merged into the weights while they are read.

::

    W' = W + scale * alpha / r * B @ A          alpha / sqrt(r) with use_rslora (arXiv 2312.03732)
    W' = m * W' / ||W'||                        per row, with use_dora (arXiv 2402.09353)

Nothing is merged when the adapter is opened: A and B stay in memory, a few rows of ``B @ A`` are computed when rows of
``W`` are read. Rows are float32, where PEFT computes in the type of the weights.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.errors import CheckpointError, InputError
from sprat.export.source.config_file import read_config
from sprat.export.source.file import FileTensor, SourceFile
from sprat.export.source.recognize.folder_kinds import refuse_pointers
from sprat.export.source.recognize.left_out import EMBEDDINGS, HEAD
from sprat.export.source.recognize.plain_names import plain_name
from sprat.export.source.rows import Measured, RowSource, RowView, read_rows
from sprat.export.source.shards import read_shards
from sprat.quant.formats import BlockFormat, get_format
from sprat.runtime.arch.fields import Fields
from sprat.runtime.files.shape_checks import summarize

__all__ = ["Adapter", "AdapterOption", "Delta", "Merged", "check_adapters", "merged"]

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_MERGE_WITH_PEFT = "merge it with PEFT's merge_and_unload(), and export the merged model"
_FIXED: dict[str, list[Any]] = {
    "peft_type": ["LORA"],
    # the others change the base weights, which the adapter's file does not have
    "init_lora_weights": [True, False, "gaussian", "eva", "orthogonal"],
    "use_qalora": [False],
    "trainable_token_indices": [],
    "alora_invocation_tokens": [],
    "layer_replication": [],
    "target_parameters": [[]],
    "use_bdlora": [],
    "arrow_config": [],
    "monteclora_config": [],
    "kasa_config": [],
    "velora_config": [],
}
_HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_bias",
        "lora_dropout",
        "lora_ga_config",
        "megatron_config",
        "megatron_core",
        "modules_to_save",
        "peft_version",
        "qalora_group_size",
        "r",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)
_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)(?:\.default)?(?:\.(?P<kind>weight|bias))?"
)


class AdapterOption(msgspec.Struct, frozen=True):
    """``DIR[:scale]``: the folder of an adapter, and the factor on what it adds."""

    folder: Path
    scale: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``DIR`` or ``DIR:scale``; a folder that exists under the whole text wins.

        Raises:
            InputError: the scale is not finite.
        """
        folder, colon, scale = text.rpartition(":")
        if not colon or not folder or Path(text).exists():
            return cls(Path(text))
        try:
            value = float(scale)
        except ValueError:
            return cls(Path(text))
        if not math.isfinite(value):
            raise InputError(f"--lora {text}: the scale is {scale}; expected a finite number such as 0.5")
        return cls(Path(folder), value)


class Delta(msgspec.Struct, frozen=True, eq=False):
    """Change of one weight by an adapter.

    Attributes:
        b: ``(out, r)``, the scale folded in.
        a: ``(r, in)``.
        magnitude: DoRA's norm of each row, ``(out,)``.
    """

    b: F32Array
    a: F32Array
    magnitude: F32Array | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """``(out, in)``."""
        return self.b.shape[0], self.a.shape[1]

    @property
    def largest(self) -> float:
        """An upper bound of the magnitudes of ``B @ A``."""
        b, a = (float(np.abs(factor).max(initial=0)) for factor in (self.b, self.a))
        return b * a * int(self.b.shape[1])


@dataclass(frozen=True, slots=True)
class Merged(RowView):
    """The rows of a weight with an adapter merged, as float32."""

    delta: Delta

    @property
    def format(self) -> BlockFormat:
        """F32."""
        return get_format("F32")

    def bound(self, measured: Measured) -> float:
        """The weight's and the adapter's together; with DoRA, the largest norm of a row."""
        if self.delta.magnitude is not None:
            return float(np.abs(self.delta.magnitude).max(initial=0)) * (1 + 1e-6)
        return self.rows.bound(measured) + self.delta.largest

    def read_into(self, start: int, out: U8Array) -> None:
        """Rows from ``start`` on, as float32 bytes."""
        stop = start + len(out)
        weights = self.rows.format.dequantize(read_rows(self.rows, start, stop))
        weights += self.delta.b[start:stop] @ self.delta.a
        if self.delta.magnitude is not None:
            norm = np.linalg.norm(weights, axis=1)
            weights *= (self.delta.magnitude[start:stop] / np.where(norm > 0, norm, 1))[:, None]
        out[...] = weights.view(np.uint8)


class Adapter(msgspec.Struct, frozen=True, eq=False):
    """An opened adapter.

    Attributes:
        option: its folder and scale.
        files: config and weights.
        tensors: every tensor of the file, to be scanned.
        deltas: name of a weight in the base checkpoint -> what is added to it.
        replaced: name of a tensor in the base checkpoint -> what replaces it: biases and ``modules_to_save``.
        keeps_tying: whether it was trained with ``ensure_weight_tying``.
    """

    option: AdapterOption
    files: tuple[SourceFile, ...]
    tensors: tuple[FileTensor, ...]
    deltas: Mapping[str, Delta] = msgspec.field(default_factory=dict)
    replaced: Mapping[str, FileTensor] = msgspec.field(default_factory=dict)
    keeps_tying: bool = False

    @classmethod
    def open(cls, option: AdapterOption) -> Self:
        """Read config and weights of an adapter.

        Raises:
            CheckpointError: the folder is no PEFT adapter, its tensors do not match, or its scale cannot be applied.
            ConfigError: it is not LoRA, or a kind of it that is not merged here.
        """
        folder = option.folder
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder; --lora expects the folder of a PEFT adapter")
        refuse_pointers(folder)
        for name in (_CONFIG, _WEIGHTS):
            if not (folder / name).is_file():
                raise CheckpointError(
                    f"{folder}: contains no {name}; --lora expects the folder of a PEFT adapter, saved as safetensors"
                )
        config = read_config(folder, _CONFIG)
        _check_config(folder, config)
        weights = SourceFile.find(folder / _WEIGHTS)
        tensors = read_shards({weights: frozenset()})
        deltas, replaced = _Reader(folder, config, option.scale).read(tensors)
        files = (SourceFile.find(folder / _CONFIG), weights)
        keeps_tying = config.get("ensure_weight_tying") is True
        return cls(option, files, tuple(tensors.values()), deltas, replaced, keeps_tying)

    def unties(self) -> bool:
        """Whether the adapter changes the embeddings or the output head alone, in a model that ties them.

        PEFT trains them apart then, though its ``merge_and_unload`` changes both at once.
        """
        changed = {*self.deltas, *self.replaced}
        return not self.keeps_tying and not changed.isdisjoint({EMBEDDINGS, HEAD})

    @property
    def name(self) -> str:
        """The folder's name."""
        return Path(os.path.realpath(self.option.folder)).name

    def notes(self) -> Iterator[str]:
        """Notes for the user."""
        yield f"the LoRA adapter {self.name} is merged into {len(self.deltas)} tensors, scale {self.option.scale:g}"
        if self.replaced:
            yield f"{self.name} replaces {summarize(sorted(self.replaced), 3)}, whatever the scale"

    def problems(self, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        """Tensors of the adapter that the base checkpoint, of these ``shapes``, does not have in that size."""
        found: list[str] = []
        for name, delta in self.deltas.items():
            shape = shapes.get(name)
            wanted = delta.shape if shape is None or len(shape) > 1 else delta.shape[1:]
            if shape != wanted:
                found.append(f"{name!r} is {shape or 'missing'} in the base model and {wanted} in the adapter")
        return found


def _check_config(folder: Path, config: Mapping[str, Any]) -> None:
    fields = Fields(f"{folder / _CONFIG}", config)
    fields.must_be(_FIXED)
    for name in ("use_rslora", "use_dora"):
        fields.flag(name, False)
    fields.number("lora_alpha", 8)
    for name in ("rank_pattern", "alpha_pattern"):
        fields.nested(name)
    fields.finish(_HARMLESS)
    fields.raise_problems(_MERGE_WITH_PEFT)


class _Reader:
    """Deltas and replacements out of an adapter's tensors."""

    def __init__(self, folder: Path, config: Mapping[str, Any], scale: float) -> None:
        self._folder, self._config, self._scale = folder, config, scale

    def read(self, tensors: Mapping[str, FileTensor]) -> tuple[dict[str, Delta], dict[str, FileTensor]]:
        parts: dict[str, dict[str, FileTensor]] = {}
        replaced: dict[str, FileTensor] = {}
        for stored, tensor in tensors.items():
            if match := _PART.fullmatch(stored.removeprefix(_PREFIX)):
                part = match["part"] + ("_bias" if match["kind"] == "bias" else "")
                parts.setdefault(match["module"], {})[part] = tensor
            elif ".lora_" in stored or ".token_adapter." in stored:
                raise self._error(f"{stored!r} is a kind of adapter that sprat does not merge; {_MERGE_WITH_PEFT}")
            else:
                name = plain_name(stored.removeprefix(_PREFIX)).replace(".base_layer.", ".")
                replaced[name.replace(".modules_to_save.", ".").replace(".default.", ".")] = tensor
        if not parts:
            raise self._error(f"no tensor is one of LoRA: found {summarize(map(repr, sorted(tensors)), 3)}")
        deltas: dict[str, Delta] = {}
        for module, found in parts.items():
            deltas |= self._deltas(module, found)
        return deltas, replaced

    def _deltas(self, module: str, parts: Mapping[str, FileTensor]) -> Iterator[tuple[str, Delta]]:
        name = plain_name(module)
        if parts.keys() == {"embedding_A", "embedding_B"}:
            a, b = (_values(parts[part]) for part in ("embedding_A", "embedding_B"))  # (r, vocab), (hidden, r)
            factor = self._factor(module, a, b)
            yield f"{name}.weight", Delta(np.ascontiguousarray(a.T) * factor, np.ascontiguousarray(b.T))
            return
        if not {"A", "B"} <= parts.keys() <= {"A", "B", "B_bias", "magnitude_vector"}:
            raise self._error(f"{module} has {', '.join(sorted(parts))}; expected lora_A and lora_B")
        a, b = _values(parts["A"]), _values(parts["B"])  # (r, in), (out, r)
        factor = self._factor(module, a, b)
        yield f"{name}.weight", Delta(b * factor, a, self._magnitude(module, parts, len(b)))
        if "B_bias" in parts:
            bias = _values(parts["B_bias"]).reshape(1, -1)
            yield f"{name}.bias", Delta(np.array([[factor]], np.float32), bias)

    def _magnitude(self, module: str, parts: Mapping[str, FileTensor], n_rows: int) -> F32Array | None:
        if ("magnitude_vector" in parts) != bool(self._config.get("use_dora")):
            raise self._error(f"{module}: use_dora and the tensors contradict each other; download the adapter again")
        if "magnitude_vector" not in parts:
            return None
        if self._scale != 1:
            raise self._error(f"a DoRA adapter sets the norms of rows, so its scale must be 1, not {self._scale:g}")
        magnitude = _values(parts["magnitude_vector"]).ravel()
        if len(magnitude) != n_rows:
            raise self._error(f"{module}: {len(magnitude)} magnitudes for {n_rows} rows; download the adapter again")
        return magnitude

    def _factor(self, module: str, a: F32Array, b: F32Array) -> np.float32:
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            raise self._error(f"{module}: A is {a.shape} and B {b.shape}; expected (r, in) and (out, r)")
        rank = _by_pattern(self._config.get("rank_pattern"), module, self._config.get("r", len(a)))
        alpha = _by_pattern(self._config.get("alpha_pattern"), module, self._config.get("lora_alpha", 8))
        if rank != len(a) or not isinstance(alpha, int | float):
            raise self._error(f"{module}: its rank is {len(a)}; {_CONFIG} says r {rank!r}, lora_alpha {alpha!r}")
        divisor = math.sqrt(rank) if self._config.get("use_rslora") else rank
        return np.float32(self._scale * alpha / divisor)

    def _error(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self._folder}: {problem}")


def _by_pattern(patterns: Any, module: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of ``module``, as PEFT's ``get_pattern_key`` does."""
    for pattern, value in (patterns or {}).items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error:
            continue  # PEFT would have failed to train with it
    return default


def _values(tensor: FileTensor) -> F32Array:
    values = tensor.format.dequantize(read_rows(tensor, 0, tensor.n_rows))
    return values.reshape(tensor.shape)


def merged(rows: RowSource, deltas: Sequence[Delta]) -> RowSource:
    """``rows`` with every delta merged, one after the other."""
    for delta in deltas:
        rows = Merged(rows, delta)
    return rows


def check_adapters(path: Path, adapters: Iterable[Adapter], stored: Mapping[str, FileTensor]) -> None:
    """Check that adapters fit the checkpoint.

    Raises:
        CheckpointError: an adapter was made for another model.
    """
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    for adapter in adapters:
        if problems := adapter.problems(shapes):
            raise CheckpointError(
                f"{adapter.option.folder}: does not fit {path}: {summarize(problems, 3)}; use the adapter's base model"
            )
