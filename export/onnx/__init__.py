"""The ONNX writer: graphs for onnxruntime, built from a config and the tensors behind its weights (docs/onnx.md).

``model.py`` puts a model together from blocks, one file each; ``weights.py`` decides how a weight is stored and
multiplied with; ``data.py`` is the file that the weights stream into; ``artifact.py`` is what :func:`plan_onnx` calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sprat.errors import InputError
from sprat.export.onnx.options import OnnxOptions
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.write.naming import ModelName
from sprat.quant.recipe import Recipe

if TYPE_CHECKING:
    from sprat.export.onnx.artifact import OnnxArtifact

__all__ = ["OnnxOptions", "plan_onnx"]


def plan_onnx(
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    name: ModelName,
    tokenizer: Mapping[str, Any],
    options: OnnxOptions | None = None,
) -> OnnxArtifact:
    """Plan the ONNX model of ``checkpoint``; reads no weights.

    Args:
        checkpoint: an opened source.
        recipe: the format of every tensor; ONNX gets what comes nearest.
        name: the parts of the model's name.
        tokenizer: its ``tokenizer.*`` keys, for the ids of special tokens.
        options: how the graph is made.

    Raises:
        InputError: the package onnx-ir is not installed.
    """
    try:
        from sprat.export.onnx.artifact import OnnxArtifact
    except ModuleNotFoundError as error:
        raise InputError(f"ONNX files need {error.name}; install it with pip install 'sprat[onnx]'") from error
    return OnnxArtifact.of(checkpoint, recipe, name=name, tokenizer=tokenizer, options=options or OnnxOptions())
