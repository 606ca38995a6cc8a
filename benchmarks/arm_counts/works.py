"""The pieces of work that are counted, as arguments of ``count_sprat`` and ``count_llamacpp``."""

from __future__ import annotations

from dataclasses import dataclass

from sprat.quant.formats import get_format

__all__ = ["FORMATS", "Work", "works"]

FORMATS = ("Q4_0", "Q4_K", "Q8_0", "IQ4_XS", "Q3_K", "Q2_K")
_ROWS, _COLS = 256, 2048  # instructions per weight hardly depend on the rows
_DEPTH = 2048
# Of R1-Distill-Qwen-1.5B (hidden, intermediate, heads, KV heads, head_dim), of DeepSeek-V2-Lite (heads, rank, rope).
_QWEN, _LITE = (1536, 8960, 12, 2, 128), (16, 512, 64)


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work.

    Attributes:
        name: key of the results.
        arguments: of the programs, from the third on.
        products: multiplications of a weight, or of an element of a KV entry, with an activation.
        n_bytes: packed weights or KV entries that it reads.
    """

    name: str
    arguments: tuple[str, ...]
    products: int
    n_bytes: int


def works(formats: tuple[str, ...] = FORMATS) -> list[Work]:
    """All of them: one token and a prompt through each format, a layer of R1-1.5B, experts, attention at depth."""
    found = []
    for name in formats:
        found += [_product(f"{name}, {n} token{'s' * (n > 1)}", name, _ROWS, _COLS, n) for n in (1, 48, 512)]
        found.append(_experts(name))
    heads, kv_heads, dim = _QWEN[2:]
    found.append(_grouped("R1-1.5B attention, 1 token @ 2048", heads, kv_heads, dim, 1))
    found.append(_grouped("R1-1.5B attention, 48 tokens @ 2048", heads, kv_heads, dim, 48))
    n_heads, rank, rope = _LITE
    found.append(
        Work(
            "V2-Lite latent attention, 1 token @ 2048",
            _words("latent", n_heads, rank, rope, _DEPTH, 1),
            n_heads * _DEPTH * (2 * rank + rope),
            _DEPTH * (rank + rope) * 2,
        )
    )
    return found


def _product(name: str, format_name: str, rows: int, cols: int, n: int) -> Work:
    arguments = _words("product", format_name, rows, cols, n)
    return Work(name, arguments, rows * cols * n, _packed(format_name, rows * cols))


def _experts(format_name: str) -> Work:
    """An eighth of two experts of DeepSeek-V2-Lite, 48 tokens each: what a prompt of 512 gives one of 64."""
    width, hidden, n_experts, n = 256, 2048, 2, 96
    weights = 3 * width * hidden
    arguments = _words("experts", format_name, width, hidden, n_experts, n)
    n_bytes = n_experts * _packed(format_name, weights)
    return Work(f"{format_name}, experts of 48 tokens", arguments, weights * n, n_bytes)


def _grouped(name: str, heads: int, kv_heads: int, dim: int, n: int) -> Work:
    arguments = _words("grouped", heads, kv_heads, dim, _DEPTH, n)
    return Work(name, arguments, 2 * heads * dim * _DEPTH * n, 2 * kv_heads * dim * _DEPTH * 2)


def _packed(format_name: str, weights: int) -> int:
    found = get_format(format_name)
    return weights // found.block_size * found.block_bytes


def _words(*values: str | int) -> tuple[str, ...]:
    return tuple(map(str, values))
