"""Memory besides weights and KV cache: the process, the tokenizer, and the activations of the native kernels.

Formulas from the code that allocates, with constants measured on Linux x86-64 (Python 3.11, two threads); the tests
compare them with the peak of child processes.
"""

from __future__ import annotations

from sprat.alignment import round_up
from sprat.runtime.arch.attention import LatentAttentionSpec
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["activation_bytes", "isolation_bytes", "native_buffer_bytes", "program_bytes"]

# Python, NumPy and sprat, once a model has run. Of libraries just installed the kernel maps 7 to 8 MB more
# than of old ones (larger folios in the page cache): the value lies between the two.
_PROGRAM_BYTES = 48 << 20
_TOKENIZER_BYTES = 9 << 20
_TOKENIZER_BYTES_PER_TOKEN = 1040  # texts, merges and the tables of the tokenizers library
_SHARED_BYTES = 2 << 20  # tokens, and logits of several rows
_FLOAT = 4
_QUANTIZED = 1.5  # bytes of an element in int8 with scale and sum, as native/matrix.hpp has it
_QUANTIZED_MULTIPLE = 256
_LOGITS = 4  # arrays of logits: the backend's, and the sampler's
_THREADS = 4  # where the number is not known
_GEMM_BYTES = 64 << 10  # a packed panel
_GEMM_ROWS = 32 + 3 * 64  # float32 per token and thread: a panel's sums, and the row tiles of an MLP
_ATTENTION_BYTES = 512 << 10  # packed queries, scores and a block of entries


def program_bytes(vocab_size: int) -> int:
    """Memory of the Python process and the tokenizer.

    Args:
        vocab_size: tokens of the tokenizer; 0 for a file without one.
    """
    tokenizer = _TOKENIZER_BYTES + vocab_size * _TOKENIZER_BYTES_PER_TOKEN if vocab_size else 0
    return _PROGRAM_BYTES + tokenizer


def isolation_bytes(vocab_size: int) -> int:
    """Memory of the second process of an isolated backend, which has no tokenizer, and of what both processes map.

    Args:
        vocab_size: logits of a token.
    """
    return _PROGRAM_BYTES + _SHARED_BYTES + 3 * _FLOAT * vocab_size


def native_buffer_bytes(spec: ModelSpec, batch: int, n_threads: int = _THREADS) -> int:
    """Memory of the native backend besides weights and cache: activations of ``batch`` tokens, logits, scratch.

    Args:
        spec: the model.
        batch: tokens of one forward pass.
        n_threads: threads of the kernels.
    """
    per_thread = _GEMM_BYTES + batch * _GEMM_ROWS * _FLOAT + _ATTENTION_BYTES
    if isinstance(spec.attention, LatentAttentionSpec):  # k_b and v_b of a head, dequantized, and its sums
        width = spec.attention.qk_nope_head_dim + spec.attention.v_head_dim
        per_thread += _FLOAT * (width * spec.attention.kv_lora_rank + batch * spec.attention.v_head_dim)
    logits = _LOGITS * _FLOAT * spec.vocab_size
    return batch * activation_bytes(spec) + logits + n_threads * per_thread


def activation_bytes(spec: ModelSpec) -> int:
    """Bytes of a token's activations: its hidden state, and those of the sublayer that has the most.

    Sublayers run one after the other in the same memory.
    """
    return _FLOAT * spec.hidden_size + max(_attention_bytes(spec), *_mlp_bytes(spec))


def _attention_bytes(spec: ModelSpec) -> int:
    """Normalized input; queries, keys and values or latents; packed queries, their sums, and the attention output."""
    attention = spec.attention
    if isinstance(attention, LatentAttentionSpec):
        floats = 2 * attention.q_width + attention.output_width + attention.cache_elements
        floats += attention.q_lora_rank or 0
    else:
        floats = 5 * attention.q_width + attention.cache_elements
    return _FLOAT * floats + _normed_bytes(spec.hidden_size) + _quantized_bytes(attention.output_width)


def _mlp_bytes(spec: ModelSpec) -> list[int]:
    """Normalized input, and the hidden values of all experts of a token, in float32 and quantized."""
    moe = spec.moe
    widths = [spec.intermediate_size] if moe is None or moe.n_dense_layers else []
    if moe is not None:
        widths.append((moe.n_experts_per_token + moe.n_shared_experts) * moe.expert_width)
    return [_normed_bytes(spec.hidden_size) + _normed_bytes(width) for width in widths]


def _normed_bytes(width: int) -> int:
    return _FLOAT * width + _quantized_bytes(width)


def _quantized_bytes(width: int) -> int:
    return int(_QUANTIZED * round_up(width, _QUANTIZED_MULTIPLE))
