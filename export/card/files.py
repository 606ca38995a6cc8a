"""The files of a bundle that are for people and other programs: the model card and Ollama's Modelfile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sprat.export.artifacts import ArtifactWriter
from sprat.export.card.model_card import CardFacts, model_card
from sprat.export.card.modelfile import modelfile
from sprat.export.card.turn_format import turn_format
from sprat.export.manifest import identity, recipe_name
from sprat.export.options import ExportOptions
from sprat.export.source.checkpoint import Checkpoint
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.architecture import architectures
from sprat.runtime.chat.template_files import StoredTemplates
from sprat.runtime.generate.sampling_defaults import sampling_from_metadata
from sprat.runtime.tokenizer.vocabulary import TokenizerModel, Vocabulary

__all__ = ["card_texts"]

_DEFAULT_CONTEXT = 4096


def card_texts(
    checkpoint: Checkpoint,
    recipe: Recipe,
    artifacts: Mapping[str, ArtifactWriter],
    tokenizer: Mapping[str, Any],
    options: ExportOptions,
) -> dict[str, bytes]:
    """File name -> content.

    Args:
        checkpoint: the source.
        recipe: the formats of its weights.
        artifacts: format -> layout.
        tokenizer: the ``tokenizer.*`` and ``general.sampling.*`` keys of a GGUF.
        options: the export's.
    """
    context = options.context or min(checkpoint.spec.max_context, _DEFAULT_CONTEXT)
    texts = {}
    if "gguf" in artifacts and options.split is None and _has_tokenizer(tokenizer):
        texts["Modelfile"] = _modelfile(artifacts["gguf"].file_name, tokenizer, context)
    name = identity(checkpoint)
    texts["README.md"] = model_card(
        CardFacts(
            name=options.name or name,
            base_model=name,
            recipe=recipe_name(recipe),
            groups=next(iter(artifacts.values())).groups,
            files={format: artifact.file_name for format, artifact in artifacts.items()},
            device=options.device_name,
            context=context,
            runs_in_genai="onnx" in artifacts and architectures()[checkpoint.spec.architecture].genai_type is not None,
            has_modelfile="Modelfile" in texts,
        )
    )
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
