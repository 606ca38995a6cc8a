"""Differences between two tables of shapes, as messages list them."""

import dataclasses

from tiny_checkpoint import CONFIGS

from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.tensors import expected_tensors
from sprat.runtime.files.shape_checks import compare_shapes, compare_with_spec, is_mtp_tensor, summarize

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
    assert is_mtp_tensor("blk.4.nextn.eh_proj.weight", 4)
    assert not is_mtp_tensor("blk.3.attn_norm.weight", 4)
    assert not is_mtp_tensor("output.4.weight", 4)
    assert compare_with_spec(SPEC, SHAPES | {f"blk.{SPEC.n_layers}.attn_norm.weight": (64,)}) == []
    shorter = dataclasses.replace(SPEC, n_layers=SPEC.n_layers + 1)
    assert compare_with_spec(shorter, SHAPES)[0].startswith("15 missing: ")


def test_a_long_list_is_cut_and_the_rest_counted():
    assert summarize(["one", "two"]) == "one; two"
    assert summarize(map(str, range(25))) == "0; 1; 2; 3; and 21 more"
