"""The reason why there is no native core."""

import ast
import dataclasses
import importlib
import types
from pathlib import Path

import numpy as np
import pytest
from native_kernels import needs_native, random_weight

from sprat import native


def test_the_environment_switches_the_core_off(monkeypatch):
    monkeypatch.setenv("SPRAT_NATIVE", "0")
    assert native._load() == (None, "switched off by SPRAT_NATIVE=0")


def test_a_core_that_was_not_built_is_a_reason(monkeypatch):
    def missing(name):
        raise ImportError(f"no {name}")

    monkeypatch.delenv("SPRAT_NATIVE", raising=False)
    monkeypatch.setattr(importlib, "import_module", missing)
    core, reason = native._load()
    assert core is None
    assert "no sprat._core" in reason


def test_a_core_of_another_version_is_not_used(monkeypatch):
    other = types.SimpleNamespace(__file__="/somewhere/_core.so", abi=native.ABI - 1)
    monkeypatch.delenv("SPRAT_NATIVE", raising=False)
    monkeypatch.setattr(importlib, "import_module", lambda name: other)
    core, reason = native._load()
    assert core is None
    assert reason.startswith("/somewhere/_core.so was built from another version")
    del other.abi  # one from before versions were stated
    assert native._load()[0] is None


@needs_native
def test_the_core_has_every_name_of_its_contract():
    contract = ast.parse(Path(native.__file__).with_name("_core.pyi").read_text(encoding="utf-8"))
    names = [node.name for node in contract.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert [name for name in names if not name.startswith("_") and not hasattr(native.core, name)] == []


@needs_native
def test_a_field_of_a_layer_that_the_core_does_not_read_is_an_error():
    """Otherwise an older core would compute without it: Qwen3's norms of queries and keys were skipped."""
    table = random_weight(np.random.default_rng(0), (64, 32), "F32")
    known = dataclasses.make_dataclass("Head", ["norm", "output", "eps"])
    newer = dataclasses.make_dataclass("Head", ["norm", "output", "eps", "cap"])
    gain = np.ones(32, np.float32)
    native.core.Head(known(gain, table, 1e-6))
    with pytest.raises(ValueError, match="does not know the field cap"):
        native.core.Head(newer(gain, table, 1e-6, 30.0))
