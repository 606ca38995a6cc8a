"""The student: DeepSeek-V2-Lite's architecture, small, written for training.

In this order: configuration, RoPE, attention, MoE, layer, model. Names and forward pass are those of Hugging Face's
``DeepseekV2ForCausalLM``, so that `hf_checkpoint.py` only has to rename tensors. Weights and the residual stream are
float32; matrix products run in bfloat16.

Sources: DeepSeek-V2 (arXiv 2405.04434) for MLA and MoE, YaRN (arXiv 2309.00071).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import torch
from grouped import grouped_linear, plan_groups
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

__all__ = ["Student", "StudentConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentConfig:
    """The dimensions of the architecture, under their names in ``config.json``."""

    vocab_size: int
    hidden_size: int = 256
    num_hidden_layers: int = 5
    first_k_dense_replace: int = 1
    intermediate_size: int = 768
    moe_intermediate_size: int = 96
    n_routed_experts: int = 32
    n_shared_experts: int = 2
    num_experts_per_tok: int = 4
    num_attention_heads: int = 4
    kv_lora_rank: int = 128
    qk_nope_head_dim: int = 32
    qk_rope_head_dim: int = 32
    v_head_dim: int = 64
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 4096
    yarn_factor: float = 4.0
    yarn_original_length: int = 1024
    yarn_beta_fast: float = 32.0
    yarn_beta_slow: float = 1.0
    yarn_mscale: float = 0.707
    """Both mscale and mscale_all_dim, as in V2-Lite: RoPE is not scaled, attention scores are."""

    @property
    def qk_head_dim(self) -> int:
        """Width of one head's query."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def softmax_scale(self) -> float:
        """1/sqrt(head), times YaRN's temperature squared."""
        mscale = 0.1 * self.yarn_mscale * math.log(self.yarn_factor) + 1.0
        return self.qk_head_dim**-0.5 * mscale**2


def rotation_frequencies(config: StudentConfig) -> Tensor:
    """YaRN, (rope dims / 2,): high frequencies are kept, low ones divided by the factor, with a ramp in between."""
    dim = config.qk_rope_head_dim
    frequencies = config.rope_theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)

    def pair_with_rotations(n: float) -> float:
        length = config.yarn_original_length / (n * 2 * math.pi)
        return dim * math.log(length) / (2 * math.log(config.rope_theta))

    low = max(math.floor(pair_with_rotations(config.yarn_beta_fast)), 0)
    high = min(math.ceil(pair_with_rotations(config.yarn_beta_slow)), dim - 1)
    interpolated = ((torch.arange(dim // 2) - low) / max(high - low, 0.001)).clamp(0, 1)
    return (frequencies * (1 - interpolated) + frequencies / config.yarn_factor * interpolated).float()


def fused(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Fuse elementwise operations with torch.compile if there is a C++ compiler: a step is a quarter faster."""
    return torch.compile(function) if shutil.which("g++") else function


@fused
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm in float32; the result is bfloat16, for the next matrix product."""
    x = x.float()
    return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight).bfloat16()


@fused
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Multiply SiLU of the gate with up."""
    return F.silu(gate) * up


@fused
def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE on adjacent pairs (DeepSeek's layout); `cos` and `sin` broadcast to half of `x`."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class Norm(nn.Module):
    """RMSNorm in float32; the result is bfloat16, for the next matrix product."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(…, size) -> the same in bfloat16."""
        return rms_norm(x, self.weight, self.eps)


class Linear(nn.Linear):
    """No bias, float32 weights, bfloat16 product."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        nn.init.normal_(self.weight, std=inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) -> (…, outputs), bfloat16."""
        return F.linear(x.bfloat16(), self.weight.bfloat16())


class Attention(nn.Module):
    """Multi-head latent attention: keys and values of all heads come from one narrow latent per token."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        heads = config.num_attention_heads
        self.q_proj = Linear(config.hidden_size, heads * config.qk_head_dim)
        self.kv_a_proj_with_mqa = Linear(config.hidden_size, config.kv_lora_rank + config.qk_rope_head_dim)
        self.kv_a_layernorm = Norm(config.kv_lora_rank, config.rms_norm_eps)
        self.kv_b_proj = Linear(config.kv_lora_rank, heads * (config.qk_nope_head_dim + config.v_head_dim))
        self.o_proj = Linear(heads * config.v_head_dim, config.hidden_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """(rows, n, hidden) -> the same; `mask` (rows, 1, n, n) is 0 where a token may attend, else -inf."""
        config, (rows, n, _) = self.config, x.shape
        nope, rope = config.qk_nope_head_dim, config.qk_rope_head_dim
        q_nope, q_rope = self.q_proj(x).view(rows, n, -1, nope + rope).transpose(1, 2).split([nope, rope], dim=-1)
        latent, k_rope = self.kv_a_proj_with_mqa(x).split([config.kv_lora_rank, rope], dim=-1)
        expanded = self.kv_b_proj(self.kv_a_layernorm(latent)).view(rows, n, -1, nope + config.v_head_dim)
        k_nope, value = expanded.transpose(1, 2).split([nope, config.v_head_dim], dim=-1)
        k_rope = rotate(k_rope[:, None], cos, sin).expand(-1, config.num_attention_heads, -1, -1)
        query = torch.cat((q_nope, rotate(q_rope, cos, sin)), dim=-1)
        key = torch.cat((k_nope, k_rope), dim=-1)
        # Not torch's fused attention: its backward pass takes three times as long on a CPU.
        scores = torch.matmul(query * config.softmax_scale, key.transpose(-1, -2)) + mask
        context = torch.matmul(scores.softmax(dim=-1), value)
        return self.o_proj(context.transpose(1, 2).reshape(rows, n, -1))


class FeedForward(nn.Module):
    """SwiGLU: the dense layer, and the shared experts as one."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden, intermediate)
        self.up_proj = Linear(hidden, intermediate)
        self.down_proj = Linear(intermediate, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(…, hidden) -> the same."""
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class MoE(nn.Module):
    """Routed experts, four per token, plus shared ones; softmax scores, not normalized after top-k."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        hidden, width, n = config.hidden_size, config.moe_intermediate_size, config.n_routed_experts
        self.router = nn.Parameter(torch.randn(n, hidden) * hidden**-0.5)
        self.gate_proj = nn.Parameter(torch.randn(n, width, hidden) * hidden**-0.5)
        self.up_proj = nn.Parameter(torch.randn(n, width, hidden) * hidden**-0.5)
        self.down_proj = nn.Parameter(torch.randn(n, hidden, width) * width**-0.5)
        self.shared_experts = FeedForward(hidden, config.n_shared_experts * width)
        self.balance_loss = torch.zeros(())
        self.load = torch.zeros(n)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, n, hidden) -> the same; leaves `balance_loss` and `load` for the training loop."""
        tokens = x.flatten(0, 1)
        scores = F.linear(tokens.float(), self.router).softmax(dim=-1)
        weights, experts = scores.topk(self.config.num_experts_per_tok, dim=-1)
        groups = plan_groups(experts, self.config.n_routed_experts)
        self.load = groups.counts / groups.counts.sum()
        # Switch Transformer's load balancing loss (arXiv 2101.03961); 1 for a uniform load.
        self.balance_loss = self.config.n_routed_experts * (self.load * scores.mean(0)).sum()
        gathered = groups.gather(tokens)
        gate_up = torch.cat((self.gate_proj.bfloat16(), self.up_proj.bfloat16()), dim=1)
        gate, up = grouped_linear(gathered, gate_up, groups).chunk(2, dim=-1)
        routed = groups.combine(grouped_linear(swiglu(gate, up), self.down_proj, groups), weights)
        return routed.view_as(x) + self.shared_experts(x)


class Layer(nn.Module):
    """Attention and feed-forward sublayers, each added to the residual stream."""

    def __init__(self, config: StudentConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        dense = index < config.first_k_dense_replace
        self.mlp = FeedForward(config.hidden_size, config.intermediate_size) if dense else MoE(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """(rows, n, hidden) float32 -> the same."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Student(nn.Module):
    """Token ids in, logits out."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Parameter(torch.randn(config.vocab_size, config.hidden_size) * 0.5)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        self.register_buffer("frequencies", rotation_frequencies(config), persistent=False)

    def forward(self, tokens: Tensor, positions: Tensor, documents: Tensor) -> Tensor:
        """Logits (rows, n, vocabulary) in bfloat16.

        `tokens`, `positions` and `documents` are (rows, n): a row is several documents in sequence, each with positions
        from 0, and no token attends to another document.
        """
        angle = positions[:, None, :, None].float() * self.frequencies
        cos, sin = angle.cos().bfloat16(), angle.sin().bfloat16()
        same = documents[:, None, :, None] == documents[:, None, None, :]
        earlier = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).tril()
        mask = torch.zeros(same.shape, dtype=torch.bfloat16).masked_fill_(~(same & earlier), -torch.inf)
        x = F.embedding(tokens, self.embed_tokens)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.lm_head(self.norm(x))

    def moe_layers(self) -> list[MoE]:
        """The MoE sublayers, first layer first."""
        return [layer.mlp for layer in self.layers if isinstance(layer.mlp, MoE)]
