"""Differences between two tables of shapes, as messages list them."""

import dataclasses

from tiny_checkpoint import CONFIGS

from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.tensors import expected_tensors
from sprat.runtime.files.shape_checks import compare_shapes, compare_with_spec, mtp_in_gguf, summarize

SPEC = spec_from_config(CONFIGS["deepseek2"])
SHAPES = expected_tensors(SPEC)


def test_equal_tables_have_no_problems():
    assert compare_shapes(SHAPES, dict(SHAPES)) == []
    assert compare_with_spec(SPEC, SHAPES) == []


def test_each_kind_of_difference_is_one_line():
    found = {"a": (1,), "b": (2, 3), "d": (5,)}
    expected = {"b": (3, 2), "c": (4,), "d": (5,)}
    assert compare_shapes(found, expected) == [
        "1 missing: 'c'",
        "1 unexpected: 'a'",
        "1 with size mismatch: 'b' is (2, 3), expected (3, 2)",
    ]


def test_an_optional_tensor_may_be_missing_but_not_of_another_shape():
    assert compare_shapes({}, {"a": (1,)}, optional=["a"]) == []
    assert compare_shapes({"a": (2,)}, {"a": (1,)}, optional=["a"]) == [
        "1 with size mismatch: 'a' is (2,), expected (1,)"
    ]


def test_mtp_tensors_are_those_of_layers_after_the_last():
    known, declared = "blk.4.nextn.eh_proj.weight", "blk.4.attn_norm.weight"
    assert mtp_in_gguf({known, declared, "blk.3.attn_norm.weight", "output.4.weight"}, SPEC) == {known, declared}
    assert mtp_in_gguf({declared}, dataclasses.replace(SPEC, n_mtp_layers=1)) == {declared}
    assert compare_with_spec(SPEC, SHAPES | {known: (64, 128), declared: (64,)}) == []
    shorter = dataclasses.replace(SPEC, n_layers=SPEC.n_layers + 1)
    assert compare_with_spec(shorter, SHAPES)[0].startswith("15 missing: ")


def test_a_layer_that_the_keys_do_not_count_is_unexpected():
    """llama.cpp refuses such a file: "wrong number of tensors"."""
    longer = SHAPES | {f"blk.{SPEC.n_layers}.attn_norm.weight": (64,)}
    assert compare_with_spec(SPEC, longer) == [f"1 unexpected: 'blk.{SPEC.n_layers}.attn_norm.weight'"]


def test_a_long_list_is_cut_and_the_rest_counted():
    assert summarize(["one", "two"]) == "one; two"
    assert summarize(map(str, range(25))) == "0; 1; 2; 3; and 21 more"
