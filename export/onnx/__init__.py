"""ONNX models for onnxruntime: graphs built from a spec, weights streamed to a data file (docs/onnx.md).

``model.py`` builds a model from blocks, one file each; ``weights.py`` decides how a weight is stored and multiplied;
``data.py`` is the file that the weights are streamed to; ``artifact.py`` is what :func:`onnx_artifact` returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sprat.errors import InputError
from sprat.export.onnx.options import OnnxOptions
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.write.naming import ModelName
from sprat.export.write.rounding import Rounding
from sprat.quant.recipe import Recipe

if TYPE_CHECKING:
    from sprat.export.onnx.artifact import OnnxArtifact

__all__ = ["OnnxOptions", "onnx_artifact"]


def onnx_artifact(
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    name: ModelName,
    tokenizer: Mapping[str, Any],
    rounding: Rounding | None = None,
    options: OnnxOptions | None = None,
) -> OnnxArtifact:
    """Build the graph of ``checkpoint`` and lay out its weights; no weight is read.

    Args:
        checkpoint: an opened source.
        recipe: the format of every tensor; :func:`~sprat.export.onnx.weights.onnx_format` maps it to ONNX.
        name: the parts of the model's name.
        tokenizer: its ``tokenizer.*`` keys, for the ids of special tokens.
        rounding: rounds tensors that are not rounded blindly, and keeps them in memory.
        options: options of the graph.

    Raises:
        InputError: the package onnx-ir is not installed.
    """
    try:
        from sprat.export.onnx.artifact import OnnxArtifact
    except ModuleNotFoundError as error:
        raise InputError(f"ONNX files need {error.name}; install it with pip install 'sprat[onnx]'") from error
    return OnnxArtifact.of(
        checkpoint, recipe, name=name, tokenizer=tokenizer, rounding=rounding, options=options or OnnxOptions()
    )
