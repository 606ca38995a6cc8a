"""Checkpoints that sprat does not read, recognized by the names of their tensors and named, each with its remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sprat.errors import CheckpointError

__all__ = ["refuse_known_tensors"]

_ORIGINAL = "export the original checkpoint in BF16, F16 or F32 that it was made from; sprat quantizes it itself"
_MERGE = "merge it with PEFT's merge_and_unload() and save_pretrained(), or export the base model with --lora FOLDER"
# The first that matches counts. A name that sprat reads must match none.
_KINDS = (
    (r"\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)\b", "a LoRA adapter that is not merged", _MERGE),
    (r"\.base_layer\.", "a model with an adapter that is not merged", _MERGE),
    (r"\.(qweight|qzeros|g_idx)$", "quantized with GPTQ or AWQ", _ORIGINAL),
    (r"\.(absmax|quant_map|nested_absmax|quant_state\..*|SCB)$", "quantized with bitsandbytes", _ORIGINAL),
    (r"\.weight_(packed|shape|zero_point)$", "quantized with compressed-tensors (llm-compressor)", _ORIGINAL),
    (r"\.weight_scale(_2)?$", "quantized with compressed-tensors (llm-compressor) or NVIDIA ModelOpt", _ORIGINAL),
    (r"\.(trellis|suh|svh|q_scale_max|q_group_map|q_invperm)$", "quantized with ExLlama", _ORIGINAL),
    (r"\.(gate_up|down)_proj_(blocks|scales)$", "quantized with MXFP4", _ORIGINAL),
    (r"\.W_q$", "quantized with HQQ", _ORIGINAL),
    (r"\.(scales|biases)$", "quantized with MLX", _ORIGINAL),
)


def refuse_known_tensors(path: Path, names: Iterable[str]) -> None:
    """Refuse tensors of a known kind that is not supported.

    Raises:
        CheckpointError: the message says what the checkpoint is, by which tensor, and what to do instead.
    """
    names = list(names)
    for pattern, what, remedy in _KINDS:
        if found := next(filter(re.compile(pattern).search, names), None):
            raise CheckpointError(f"{path}: {what} (it has {found!r}), which sprat does not read; {remedy}")
