"""Rearrangements of rows, against what they are for: the same attention from rearranged weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprat.export.source.rows import AsFloat32, HeadRows, InterleavedHeads, Stacked, TransposedHeads, alike, read_rows
from sprat.quant.formats import get_format

RNG = np.random.default_rng(0)
N_HEADS, NOPE, VALUE, RANK, HEAD, HIDDEN = 3, 4, 6, 5, 8, 10


class Matrix:
    """Rows held in memory, which counts what is read of it."""

    def __init__(self, array, form="F32"):
        self.format = get_format(form)
        self.packed = self.format.quantize(np.asarray(array, np.float32))
        self.n_rows, self.n_columns = array.shape
        self.rows_read = 0

    def read_into(self, start, out):
        self.rows_read += len(out)
        out[...] = self.packed[start : start + len(out)]


def whole(rows):
    return rows.format.dequantize(read_rows(rows, 0, rows.n_rows))


def rotate(vector, pairs, angle):
    """Rotate each pair of components by its own angle."""
    turned = vector.copy()
    for number, (i, j) in enumerate(pairs):
        c, s = np.cos(angle * (number + 1)), np.sin(angle * (number + 1))
        turned[i], turned[j] = c * vector[i] - s * vector[j], s * vector[i] + c * vector[j]
    return turned


@pytest.mark.parametrize("form", ["F32", "F16", "BF16"])
def test_interleaved_heads_give_the_same_scores_with_neighbouring_pairs(form):
    q, k = RNG.standard_normal((2, N_HEADS * HEAD, HIDDEN))
    x, y = RNG.standard_normal((2, HIDDEN))
    halves = [(i, i + HEAD // 2) for i in range(HEAD // 2)]
    neighbours = [(2 * i, 2 * i + 1) for i in range(HEAD // 2)]
    for head in range(N_HEADS):
        at = slice(head * HEAD, head * HEAD + HEAD)
        old = [whole(Matrix(w, form)) for w in (q, k)]
        new = [whole(InterleavedHeads(Matrix(w, form), N_HEADS)) for w in (q, k)]
        expected = rotate(old[0][at] @ x, halves, 0.3) @ rotate(old[1][at] @ y, halves, 0.7)
        found = rotate(new[0][at] @ x, neighbours, 0.3) @ rotate(new[1][at] @ y, neighbours, 0.7)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("form", ["F32", "F16", "BF16"])
def test_the_parts_of_kv_b_give_the_same_attention_absorbed(form):
    kv_b = Matrix(RNG.standard_normal((N_HEADS * (NOPE + VALUE), RANK)), form)
    k_b = whole(TransposedHeads(kv_b, N_HEADS, NOPE)).reshape(N_HEADS, RANK, NOPE)
    v_b = whole(HeadRows(kv_b, N_HEADS, NOPE, VALUE)).reshape(N_HEADS, VALUE, RANK)
    latent, query = RNG.standard_normal(RANK), RNG.standard_normal((N_HEADS, NOPE))
    expanded = (whole(kv_b) @ latent).reshape(N_HEADS, NOPE + VALUE)
    for head in range(N_HEADS):
        np.testing.assert_allclose((k_b[head] @ query[head]) @ latent, query[head] @ expanded[head, :NOPE], rtol=1e-12)
        np.testing.assert_allclose(v_b[head] @ latent, expanded[head, NOPE:], rtol=1e-12)


def test_a_stack_holds_its_parts_in_order():
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
def test_any_part_is_the_part_of_the_whole(name, data):
    rows = VIEWS[name]
    start = data.draw(st.integers(0, rows.n_rows - 1))
    stop = data.draw(st.integers(start + 1, rows.n_rows))
    np.testing.assert_array_equal(read_rows(rows, start, stop), read_rows(rows, 0, rows.n_rows)[start:stop])


def test_parts_of_one_format_stay_as_they_are():
    parts = [Matrix(np.ones((2, 32)), "BF16"), Matrix(np.ones((2, 32)), "BF16")]
    assert alike(parts) == parts


def test_parts_of_several_formats_become_float32():
    parts = [Matrix(np.ones((2, 32)), "BF16"), Matrix(np.ones((2, 32)), "F16")]
    assert {part.format.name for part in alike(parts)} == {"F32"}


def test_blocks_become_float32_before_weights_change_places():
    (part,) = alike([Matrix(np.ones((2, 32)), "Q8_0")], splittable=True)
    assert part.format.name == "F32"
    assert (part.n_rows, part.n_columns) == (2, 32)
