"""The options of an export: one record with defaults, and the same names as keyword arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self, TypedDict

from sprat.devices.profile import find_profile
from sprat.export.onnx import OnnxOptions
from sprat.export.onnx.ort_version import LOWEST, OrtVersion
from sprat.export.quality.options import QualityOptions
from sprat.export.source.lora import AdapterOption
from sprat.keywords import record_of
from sprat.runtime.memory.amount import parse_memory

__all__ = ["ExportKeywords", "ExportOptions"]

_DEFAULT_QUANT = "int4"


class ExportKeywords(TypedDict, total=False):
    """The fields of :class:`ExportOptions`, for type checkers; documented there."""

    quant: str | None
    device: str | None
    context: int | None
    formats: Sequence[str]
    tensor_rules: Sequence[str]
    name: str | None
    chat_template: str | os.PathLike[str] | None
    lora: Sequence[str | os.PathLike[str]]
    ignore_config_fields: Sequence[str]
    align: int | None
    split: int | str | None
    block_size: int
    accuracy_level: int
    portable: bool
    quality: str | None
    target_size: int | str | None
    target_bpw: float | None
    match_size: str | os.PathLike[str] | None
    max_kld: float | None
    calibration: Sequence[str | os.PathLike[str]]
    imatrix_out: str | os.PathLike[str] | None
    speed_weight: float
    prune_experts: float | None
    ort: str
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Options of an export besides source and target.

    Attributes:
        quant: ``"int4"``, ``"int8"``, a mix of llama-quantize such as ``"q4_k_m"``, a block format, or ``"keep"``: a
            GGUF's own; by default what fits ``device``, and
            ``"int4"`` without a device.
        device: a profile's name, or its file; a model that does not fit its memory is refused before a weight is read.
        context: tokens to plan the KV cache for; by default the model's limit, at most 4096.
        formats: the artifacts to write: ``"gguf"``, ``"onnx"`` or both.
        tensor_rules: block formats of single tensors, ``"ffn_down_exps=q5_0"``; later rules win.
        name: the model's name in manifest, metadata and file name, ``"owner/Name-7B-Chat"``; by default the source's.
        chat_template: a file with a Jinja template, instead of the source's chat template.
        lora: folders of PEFT's LoRA adapters to merge into the weights, ``"DIR"`` or ``"DIR:scale"``, in this order.
        ignore_config_fields: unknown fields of ``config.json`` to ignore, since they do not change the forward pass:
            ``"rope_scaling.name"``.
        align: GGUF: alignment of the tensors in bytes; by default 32, which llama.cpp's tools expect.
        split: GGUF: split into files of at most this size, in bytes or as ``"4GB"``, if it is larger; the names are
            llama.cpp's, and llama.cpp loads them.
        block_size: ONNX: weights that share a scale: 32, 64 or 128.
        accuracy_level: ONNX: 4 quantizes activations to int8, 0 keeps them in float32.
        portable: ONNX: standard operators only, for runtimes other than onnxruntime.
        quality: ``"fast"``, ``"balanced"`` or ``"best"`` to give every tensor the format that pays most, and to round
            for the inputs that a text shows, or ``"none"``; by default ``"fast"`` for one GGUF in int4, ``"balanced"``
            with one of the targets or a text, and else ``"none"``.
        target_size: size of the file, in bytes or as ``"6.2GB"``; by default as large as ``quant`` makes it.
        target_bpw: the size as bits per weight, scales included.
        match_size: the size as that of another file.
        max_kld: the smallest file whose mean KL divergence on the evaluation text is at most this.
        calibration: text files to calibrate with, beside a quarter of packaged text; the packaged text by default.
        imatrix_out: write what the calibration found about inputs as llama.cpp's imatrix, for llama-quantize.
        prune_experts: share of each layer's routed experts to leave out, ``0.25``: those that add least to the
            calibration text.
        speed_weight: with a device, what the time of a token counts beside the divergence: with 1, a tenth less time
            may cost a tenth more divergence.
        ort: ONNX: the oldest onnxruntime that must load the graph, ``"1.22"``; from ``"1.31"`` on, MoE graphs are
            smaller and load faster.
        force: replace an existing bundle, and write a model that does not fit the device.
    """

    quant: str | None = None
    device: str | None = None
    context: int | None = None
    formats: Sequence[str] = ("gguf",)
    tensor_rules: Sequence[str] = ()
    name: str | None = None
    chat_template: str | os.PathLike[str] | None = None
    lora: Sequence[str | os.PathLike[str]] = ()
    ignore_config_fields: Sequence[str] = ()
    align: int | None = None
    split: int | str | None = None
    block_size: int = 32
    accuracy_level: int = 4
    portable: bool = False
    quality: str | None = None
    target_size: int | str | None = None
    target_bpw: float | None = None
    match_size: str | os.PathLike[str] | None = None
    max_kld: float | None = None
    calibration: Sequence[str | os.PathLike[str]] = ()
    imatrix_out: str | os.PathLike[str] | None = None
    speed_weight: float = 0.0
    prune_experts: float | None = None
    ort: str = str(LOWEST)
    force: bool = False

    @classmethod
    def of(cls, keywords: ExportKeywords) -> Self:
        """The record of ``export``'s keyword arguments; TypeError for one that does not exist."""
        return record_of(cls, "export()", keywords)

    @property
    def device_name(self) -> str | None:
        """Name of the device's profile."""
        return find_profile(self.device).name if self.device else None

    @property
    def wanted_quant(self) -> str | None:
        """The quantization to use, None to let the device decide."""
        return self.quant or (None if self.device else _DEFAULT_QUANT)

    @property
    def split_bytes(self) -> int | None:
        """Largest size of one GGUF file."""
        return None if self.split is None else parse_memory(self.split, "split")

    @property
    def onnx(self) -> OnnxOptions:
        """Options of the ONNX graph."""
        return OnnxOptions(
            block_size=self.block_size,
            accuracy_level=self.accuracy_level,
            portable=self.portable,
            ort=OrtVersion.parse(self.ort),
            context=self.context,
        )

    @property
    def calibrated(self) -> QualityOptions:
        """Level, target and text of a calibrated export."""
        for_pruning_only = self.prune_experts is not None and self.quality in {"none", "fast"}
        found = QualityOptions.of(
            self.quality,
            target_size=self.target_size,
            target_bpw=self.target_bpw,
            match_size=self.match_size,
            max_kld=self.max_kld,
            calibration=() if for_pruning_only else self.calibration,
            imatrix_out=self.imatrix_out,
            speed_weight=self.speed_weight,
            device=self.device,
        )
        return replace(found, file_format="onnx" if list(self.formats) == ["onnx"] else "gguf")

    @property
    def adapters(self) -> list[AdapterOption]:
        """The LoRA adapters to merge."""
        return [AdapterOption.parse(os.fspath(text)) for text in self.lora]
