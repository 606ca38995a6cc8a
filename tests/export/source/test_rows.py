"""Views that rearrange rows: attention computed from the rearranged weights is the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprat.export.source.rows import (
    AsFloat32,
    HeadRows,
    InterleavedHeads,
    Stacked,
    TransposedHeads,
    in_one_format,
    read_rows,
)
from sprat.quant.formats import get_format

RNG = np.random.default_rng(0)
N_HEADS, NOPE, VALUE, RANK, HEAD, HIDDEN = 3, 4, 6, 5, 8, 10


class Matrix:
    """A row source in memory that counts the rows read."""

    def __init__(self, array, format="F32"):
        self.format = get_format(format)
        self.packed = self.format.quantize(np.asarray(array, np.float32))
        self.n_rows, self.n_columns = array.shape
        self.rows_read = 0

    def read_into(self, start, out):
        self.rows_read += len(out)
        out[...] = self.packed[start : start + len(out)]


def whole(rows):
    return rows.format.dequantize(read_rows(rows, 0, rows.n_rows))


def rotate(vector, pairs, angle):
    """Rotate each pair of elements by its own angle."""
    rotated = vector.copy()
    for index, (i, j) in enumerate(pairs):
        c, s = np.cos(angle * (index + 1)), np.sin(angle * (index + 1))
        rotated[i], rotated[j] = c * vector[i] - s * vector[j], s * vector[i] + c * vector[j]
    return rotated


@pytest.mark.parametrize("format", ["F32", "F16", "BF16"])
def test_interleaved_heads_give_the_same_scores_with_interleaved_rope(format):
    q, k = RNG.standard_normal((2, N_HEADS * HEAD, HIDDEN))
    x, y = RNG.standard_normal((2, HIDDEN))
    halves = [(i, i + HEAD // 2) for i in range(HEAD // 2)]
    pairs = [(2 * i, 2 * i + 1) for i in range(HEAD // 2)]
    for head in range(N_HEADS):
        at = slice(head * HEAD, head * HEAD + HEAD)
        old = [whole(Matrix(w, format)) for w in (q, k)]
        new = [whole(InterleavedHeads(Matrix(w, format), N_HEADS)) for w in (q, k)]
        expected = rotate(old[0][at] @ x, halves, 0.3) @ rotate(old[1][at] @ y, halves, 0.7)
        found = rotate(new[0][at] @ x, pairs, 0.3) @ rotate(new[1][at] @ y, pairs, 0.7)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("format", ["F32", "F16", "BF16"])
def test_k_b_and_v_b_give_the_same_attention_absorbed(format):
    kv_b = Matrix(RNG.standard_normal((N_HEADS * (NOPE + VALUE), RANK)), format)
    k_b = whole(TransposedHeads(kv_b, N_HEADS, NOPE)).reshape(N_HEADS, RANK, NOPE)
    v_b = whole(HeadRows(kv_b, N_HEADS, NOPE, VALUE)).reshape(N_HEADS, VALUE, RANK)
    latent, query = RNG.standard_normal(RANK), RNG.standard_normal((N_HEADS, NOPE))
    expanded = (whole(kv_b) @ latent).reshape(N_HEADS, NOPE + VALUE)
    for head in range(N_HEADS):
        np.testing.assert_allclose((k_b[head] @ query[head]) @ latent, query[head] @ expanded[head, :NOPE], rtol=1e-12)
        np.testing.assert_allclose(v_b[head] @ latent, expanded[head, NOPE:], rtol=1e-12)


def test_a_stack_has_its_parts_in_order():
    experts = RNG.standard_normal((4, 3, 8)).astype(np.float32)
    stack = Stacked([Matrix(expert) for expert in experts])
    np.testing.assert_array_equal(whole(stack).reshape(4, 3, 8), experts)


def test_one_expert_is_read_without_the_others():
    experts = [Matrix(RNG.standard_normal((3, 8))) for _ in range(4)]
    read_rows(Stacked(experts), 6, 9)
    assert [expert.rows_read for expert in experts] == [0, 0, 3, 0]


def _views():
    matrix = Matrix(RNG.standard_normal((N_HEADS * (NOPE + VALUE), RANK)))
    return {
        "interleaved": InterleavedHeads(matrix, N_HEADS),
        "head rows": HeadRows(matrix, N_HEADS, NOPE, VALUE),
        "transposed": TransposedHeads(matrix, N_HEADS, NOPE),
        "stacked": Stacked([Matrix(RNG.standard_normal((7, 4))) for _ in range(5)]),
        "float32": AsFloat32(Matrix(RNG.standard_normal((9, 32)), "Q8_0")),
    }


VIEWS = _views()


@pytest.mark.parametrize("name", VIEWS)
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_any_range_of_rows_equals_that_range_of_all_rows(name, data):
    rows = VIEWS[name]
    start = data.draw(st.integers(0, rows.n_rows - 1))
    stop = data.draw(st.integers(start + 1, rows.n_rows))
    np.testing.assert_array_equal(read_rows(rows, start, stop), read_rows(rows, 0, rows.n_rows)[start:stop])


def test_parts_of_one_format_are_unchanged():
    parts = [Matrix(np.ones((2, 32)), "BF16"), Matrix(np.ones((2, 32)), "BF16")]
    assert in_one_format(parts) == parts


def test_parts_of_several_formats_become_float32():
    parts = [Matrix(np.ones((2, 32)), "BF16"), Matrix(np.ones((2, 32)), "F16")]
    assert {part.format.name for part in in_one_format(parts)} == {"F32"}


def test_blocks_become_float32_before_elements_are_moved():
    (part,) = in_one_format([Matrix(np.ones((2, 32)), "Q8_0")], elementwise=True)
    assert part.format.name == "F32"
    assert (part.n_rows, part.n_columns) == (2, 32)
