"""The teacher: a Llama forward pass over a GGUF file, in bfloat16, for a large batch of texts.

Not llama.cpp, because throughput matters here and not latency: with a batch of a few hundred texts the products are
large GEMMs in bfloat16. The README compares the measured rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

__all__ = ["Teacher", "load_teacher"]


@dataclass(frozen=True, slots=True)
class _Layer:
    attn_norm: Tensor
    qkv: Tensor
    attn_output: Tensor
    ffn_norm: Tensor
    gate_up: Tensor
    ffn_down: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A Llama decoder: weights, tokenizer and hyperparameters."""

    tokenizer: Tokenizer
    embedding: Tensor
    """(vocabulary, hidden); also the output matrix."""
    layers: tuple[_Layer, ...]
    output_norm: Tensor
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float

    def new_cache(self, n_texts: int, length: int) -> Tensor:
        """Keys and values of all layers: (layer, 2, kv head, text, position, head_dim)."""
        return torch.zeros(len(self.layers), 2, self.n_kv_heads, n_texts, length, self.head_dim, dtype=torch.bfloat16)

    def forward(self, tokens: Tensor, cache: Tensor, start: int, prefix: Tensor) -> Tensor:
        """Logits (text, vocabulary) after the last of `tokens` (text, n), whose KV entries begin at `start` in `cache`.

        `prefix` is the KV cache of a prefix that all texts share; it may be empty.
        """
        cos, sin = self._rotation(prefix.shape[-2] + start, tokens.shape[1])
        x = self.embedding[tokens]
        for layer, kv, shared in zip(self.layers, cache, prefix, strict=True):
            x = x + self._attend(layer, self._norm(x, layer.attn_norm), kv, shared, start, cos, sin)
            gate, up = F.linear(self._norm(x, layer.ffn_norm), layer.gate_up).chunk(2, dim=-1)
            x = x + F.linear(F.silu(gate) * up, layer.ffn_down)
        return F.linear(self._norm(x[:, -1], self.output_norm), self.embedding)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self.rms_norm_eps)

    def _rotation(self, start: int, n: int) -> tuple[Tensor, Tensor]:
        inverse = self.rope_theta ** (-torch.arange(0, self.head_dim, 2) / self.head_dim)
        angle = torch.arange(start, start + n)[:, None] * inverse
        return angle.cos().bfloat16(), angle.sin().bfloat16()

    def _attend(
        self, layer: _Layer, x: Tensor, kv: Tensor, shared: Tensor, start: int, cos: Tensor, sin: Tensor
    ) -> Tensor:
        texts, n, _ = x.shape
        heads = (self.n_heads, self.n_kv_heads, self.n_kv_heads)
        parts = F.linear(x, layer.qkv).view(texts, n, -1, self.head_dim).permute(2, 0, 1, 3).split(heads)
        end = start + n
        kv[0][:, :, start:end] = _rotate(parts[1], cos, sin)
        kv[1][:, :, start:end] = parts[2]
        # (kv head, text, query heads of the group x tokens, head_dim): no copy of the cache per query head.
        query = _rotate(parts[0], cos, sin).unflatten(0, (self.n_kv_heads, -1)).transpose(1, 2).flatten(2, 3)
        # Always the whole cache, masked: one matrix shape for all steps, since oneDNN builds a kernel for each shape.
        own = query @ kv[0].transpose(-1, -2)
        causal = torch.arange(start, end)[:, None] >= torch.arange(kv.shape[-2])
        own = own.masked_fill(~causal.repeat(self.n_heads // self.n_kv_heads, 1), -torch.inf)
        # The shared prefix is read once, in one product for all texts.
        first = _for_all_texts(query, shared[0].transpose(-1, -2))
        weights = (torch.cat((first, own), dim=-1) * self.head_dim**-0.5).softmax(-1)
        n_shared = first.shape[-1]
        context = weights[..., n_shared:] @ kv[1] + _for_all_texts(weights[..., :n_shared], shared[1])
        context = context.unflatten(2, (-1, n)).permute(
            1, 3, 0, 2, 4
        )  # (text, n, kv head, head of the group, head_dim)
        return F.linear(context.reshape(texts, n, -1), layer.attn_output)


def _for_all_texts(x: Tensor, shared: Tensor) -> Tensor:
    """``x (kv head, text, rows, k)`` times ``shared (kv head, 1, k, m)``, as one product per head."""
    return (x.flatten(1, 2) @ shared[:, 0]).unflatten(1, x.shape[1:3])


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE in GGUF's layout for Llama: adjacent pairs."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def load_teacher(path: Path) -> Teacher:
    """Read a Llama GGUF with a GPT-2-style tokenizer, dequantized to bfloat16."""
    reader = gguf.GGUFReader(path)
    weights = {tensor.name: _dequantize(tensor) for tensor in reader.tensors}

    def number(key: str) -> float:
        return float(reader.fields[f"llama.{key}"].contents())

    n_heads = int(number("attention.head_count"))
    return Teacher(
        tokenizer=_tokenizer(reader),
        embedding=weights["token_embd.weight"],
        layers=tuple(_layer(weights, index) for index in range(int(number("block_count")))),
        output_norm=weights["output_norm.weight"],
        n_heads=n_heads,
        n_kv_heads=int(number("attention.head_count_kv")),
        head_dim=int(number("embedding_length")) // n_heads,
        rope_theta=number("rope.freq_base"),
        rms_norm_eps=number("attention.layer_norm_rms_epsilon"),
    )


def _dequantize(tensor: gguf.ReaderTensor) -> Tensor:
    values = gguf.dequantize(tensor.data, tensor.tensor_type)
    return torch.from_numpy(np.array(values)).bfloat16()


def _layer(weights: dict[str, Tensor], index: int) -> _Layer:
    def of(name: str) -> Tensor:
        return weights[f"blk.{index}.{name}.weight"]

    return _Layer(
        attn_norm=of("attn_norm"),
        qkv=torch.cat([of("attn_q"), of("attn_k"), of("attn_v")]),
        attn_output=of("attn_output"),
        ffn_norm=of("ffn_norm"),
        gate_up=torch.cat([of("ffn_gate"), of("ffn_up")]),
        ffn_down=of("ffn_down"),
    )


def _tokenizer(reader: gguf.GGUFReader) -> Tokenizer:
    tokens: list[str] = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(pair.split(" ")) for pair in reader.fields["tokenizer.ggml.merges"].contents()]
    types: list[int] = reader.fields["tokenizer.ggml.token_type"].contents()
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    return tokenizer
