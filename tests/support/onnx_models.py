"""ONNX models exported from checkpoints and run by onnxruntime alone, with the names and shapes of docs/onnx.md."""

from itertools import pairwise

import numpy as np
import onnxruntime

from sprat.export.onnx import OnnxOptions, onnx_artifact
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.write.naming import ModelName
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.attention import LatentAttentionSpec
from sprat.runtime.arch.spec import ModelSpec

TOKENIZER = {"tokenizer.ggml.model": "none"}


def artifact(checkpoint: Checkpoint, quant: str = "f32", **options):
    """The ONNX artifact of ``checkpoint``, not yet written."""
    shapes = {tensor.name: tensor.shape for tensor in checkpoint.tensors.values()}
    recipe = Recipe.named(quant, tied_embeddings=checkpoint.spec.tied_embeddings)
    name = ModelName.parse("tiny", shapes)
    return onnx_artifact(checkpoint, recipe, name=name, tokenizer=TOKENIZER, options=OnnxOptions(**options))


def write(folder, checkpoint: Checkpoint, quant: str = "f32", **options):
    """Create ``folder`` and write the model of ``checkpoint`` to it."""
    folder.mkdir()
    artifact(checkpoint, quant, **options).write(folder, lambda _: None)
    return folder


class Runner:
    """One sequence in onnxruntime: a session, and the KV cache between its calls."""

    def __init__(self, folder, spec: ModelSpec, **settings) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", options, **settings)
        self._spec, self._is_latent = spec, isinstance(spec.attention, LatentAttentionSpec)
        self.reset()

    def reset(self, batch: int = 1) -> None:
        """Start a new sequence."""
        spec, self._length = self._spec, 0
        if self._is_latent:
            empty = np.zeros((0, spec.attention.latent_dim), np.float32)
            self.cache = {f"past_latent.{layer}": empty for layer in range(spec.n_layers)}
        else:
            empty = np.zeros((batch, spec.attention.n_kv_heads, 0, spec.attention.head_dim), np.float32)
            parts = [f"{layer}.{part}" for layer in range(spec.n_layers) for part in ("key", "value")]
            self.cache = {f"past_key_values.{part}": empty for part in parts}

    def __call__(self, tokens, **feeds) -> np.ndarray:
        """Logits ``(batch, n, vocab)`` of tokens ``(batch, n)``."""
        tokens = np.asarray(tokens, np.int64)
        self._length += tokens.shape[1]
        if not self._is_latent:
            feeds["attention_mask"] = np.ones((len(tokens), self._length), np.int64)
        logits, *rows = self._session.run(None, {"input_ids": tokens, **self.cache, **feeds})
        for name, row in zip(self.cache, rows, strict=True):
            self.cache[name] = np.concatenate([self.cache[name], row]) if self._is_latent else row
        return logits

    def in_chunks(self, tokens, *ends) -> np.ndarray:
        """Logits ``(n, vocab)`` after every token of a new sequence, run in chunks that end at ``ends``."""
        self.reset()
        return np.concatenate([self([tokens[a:b]])[0] for a, b in pairwise((0, *ends, len(tokens)))])
