"""The files of a bundle that are for people and other programs: the model card and Ollama's Modelfile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sprat.export.card.model_card import model_card
from sprat.export.card.modelfile import modelfile
from sprat.export.card.turn_format import turn_format
from sprat.runtime.chat.template_files import StoredTemplates
from sprat.runtime.files.bundle import Manifest
from sprat.runtime.files.split_name import split_name
from sprat.runtime.generate.sampling_defaults import sampling_from_metadata
from sprat.runtime.memory.footprint import DEFAULT_CONTEXT
from sprat.runtime.tokenizer.vocabulary import TokenizerModel, Vocabulary

__all__ = ["card_texts"]


def card_texts(manifest: Manifest, tokenizer: Mapping[str, Any], context: int | None) -> dict[str, bytes]:
    """File name -> content. A model without a tokenizer, or in several files, has no Modelfile.

    Args:
        manifest: of the bundle.
        tokenizer: the ``tokenizer.*`` and ``general.sampling.*`` keys of a GGUF.
        context: tokens that the KV cache was planned for; by default the model's limit, at most 4096.
    """
    context = context or min(manifest.spec["max_context"], DEFAULT_CONTEXT)
    gguf = next((artifact.file for artifact in manifest.artifacts if artifact.format == "gguf"), None)
    texts = {}
    if gguf and split_name(Path(gguf)) is None and _has_tokenizer(tokenizer):
        texts["Modelfile"] = _modelfile(gguf, tokenizer, context)
    texts["README.md"] = model_card(manifest, context=context, has_modelfile="Modelfile" in texts)
    return {name: text.encode() for name, text in texts.items()}


def _has_tokenizer(keys: Mapping[str, Any]) -> bool:
    return bool(keys.get("tokenizer.ggml.model", TokenizerModel.NONE) != TokenizerModel.NONE)


def _modelfile(file_name: str, tokenizer: Mapping[str, Any], context: int) -> str:
    vocabulary = Vocabulary.from_metadata(tokenizer)
    template = StoredTemplates.from_metadata(tokenizer).template()
    bos_id = vocabulary.bos_id if vocabulary.add_bos else None
    return modelfile(
        file_name,
        turn_format(template) if template else None,
        bos=None if bos_id is None else vocabulary.tokens[bos_id],
        stop=[vocabulary.tokens[token] for token in sorted(vocabulary.eog_ids)],
        sampling=sampling_from_metadata(tokenizer),
        context=context,
    )
