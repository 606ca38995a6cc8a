"""The source of an export as a running model: the baseline of an artifact."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from sprat.devices.machine import available_bytes
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.lora import AdapterOption
from sprat.export.write.naming import model_id
from sprat.runtime.backends.reference import ReferenceBackend
from sprat.runtime.chat.template_files import template_from_files
from sprat.runtime.engine import Engine
from sprat.runtime.generate.sampling_defaults import sampling_from_config
from sprat.runtime.memory.amount import parse_memory
from sprat.runtime.tokenizer.hf_files import TokenizerFiles
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["load_source", "open_source"]


def open_source(
    path: str | os.PathLike[str],
    *,
    dense_bytes: int,
    ignore_fields: Collection[str] = (),
    adapters: Sequence[AdapterOption] = (),
) -> ReferenceBackend:
    """A checkpoint folder or a GGUF file in the reference backend, computed in float32.

    Weights keep the precision of the source; a quantized GGUF is dequantized, so it is its own baseline.

    Args:
        path: the source of the export.
        dense_bytes: bytes of dequantized weights that may stay in memory.
        ignore_fields: unknown fields of ``config.json`` that do not change the forward pass.
        adapters: LoRA adapters to merge.

    Raises:
        InputError: the source cannot be read or is incomplete; see
            :meth:`sprat.export.source.checkpoint.Checkpoint.open`.
    """
    checkpoint = Checkpoint.open(path, ignore_fields=ignore_fields, adapters=adapters)
    checkpoint.check_headers()
    return ReferenceBackend(checkpoint.spec, checkpoint, dense_bytes=dense_bytes)


def load_source(path: str | os.PathLike[str], *, memory: int | str | None = None, context: int | None = None) -> Engine:
    """A checkpoint folder as an engine: the unquantized model, to generate and chat with.

    Args:
        path: the folder.
        memory: bytes of dequantized weights that may stay in memory; by default half of the free memory.
        context: tokens of prompt and answer together; by default the model's limit, at most 4096.

    Raises:
        InputError: the checkpoint cannot be read, or its tokenizer is not supported.
    """
    dense_bytes = available_bytes() // 2 if memory is None else parse_memory(memory)
    files = TokenizerFiles(Path(path))
    return Engine(
        open_source(path, dense_bytes=dense_bytes),
        Tokenizer.from_files(files),
        template=template_from_files(files),
        context=context,
        name=model_id(Path(path).absolute()),
        sampling=sampling_from_config(files.generation),
    )
