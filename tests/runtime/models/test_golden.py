"""Logits of tiny random models against transformers, for every architecture.

``tests/golden/make_golden.py`` writes the files; ``versions.json`` has the versions it ran with.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from golden_models import GOLDEN, MODELS, NAMES, config_of, with_field
from native_kernels import kernels_of, needs_native
from published_configs import PUBLISHED
from safetensors.numpy import load_file

from sprat.export.source.checkpoint import Checkpoint
from sprat.runtime.arch.architecture import config_readers
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.models import Model

TOLERANCE = 1e-4  # of the largest logit


def load(name, kernels):
    """Model, tokens and expected logits of one folder."""
    checkpoint = Checkpoint.open(GOLDEN / name)
    expected = load_file(GOLDEN / name / "expected.safetensors")
    return Model(checkpoint.spec, checkpoint, kernels), expected["tokens"], expected["logits"]


@pytest.fixture(scope="module")
def golden(request):
    return load(request.param, ReferenceKernels())


every_model = pytest.mark.parametrize("golden", NAMES, indirect=True)
every_latent_model = pytest.mark.parametrize("golden", with_field("kv_lora_rank"), indirect=True)
every_moe_model = pytest.mark.parametrize("golden", with_field("n_routed_experts", "num_experts"), indirect=True)


def in_chunks(model, tokens, *ends):
    """Logits after every token, computed in chunks that end at ``ends``."""
    cache = model.new_cache(len(tokens))
    chunks = [model.forward(tokens[a:b], cache, all_logits=True) for a, b in pairwise((0, *ends, len(tokens)))]
    return np.concatenate(chunks)


def relative_error(logits, expected):
    return np.abs(logits - expected).max() / np.abs(expected).max()


def test_the_table_holds_every_architecture_and_every_golden_model():
    own = {name for name, read in config_readers().items() if read.__module__.startswith("sprat.")}
    assert {row.architecture for row in MODELS} == own  # another test may have defined more
    assert sorted(name for row in MODELS for name in row.golden) == NAMES


@pytest.mark.parametrize("row", MODELS, ids=lambda row: row.architecture)
def test_every_architecture_has_a_plain_and_an_odd_model(row):
    assert all(config_of(name)["architectures"] == [row.architecture] for name in row.golden)
    assert {f"{row.golden[0]}-odd"} <= set(row.golden)
    assert all(Checkpoint.open(GOLDEN / name).spec.architecture == row.gguf for name in row.golden)


@every_model
def test_one_pass_gives_the_expected_logits(golden):
    model, tokens, expected = golden
    assert relative_error(in_chunks(model, tokens), expected) <= TOLERANCE


@every_model
def test_chunks_give_the_expected_logits(golden):
    model, tokens, expected = golden
    assert relative_error(in_chunks(model, tokens, 1, 8, 9, 41), expected) <= TOLERANCE


@every_model
def test_one_token_at_a_time_gives_the_expected_logits(golden):
    model, tokens, expected = golden
    assert relative_error(in_chunks(model, tokens, *range(1, len(tokens))), expected) <= TOLERANCE


@every_model
def test_the_last_logits_are_those_of_all_logits(golden):
    model, tokens, expected = golden
    last = model.forward(tokens, model.new_cache(len(tokens)))
    assert last.shape == (1, model.spec.vocab_size)
    assert relative_error(last, expected[-1:]) <= TOLERANCE


@every_latent_model
@pytest.mark.parametrize("form", ["expanded", "absorbed"])
@pytest.mark.parametrize("ends", [(), (1, 8, 9, 41), tuple(range(1, 80))], ids=["one pass", "chunks", "token by token"])
def test_expanded_and_absorbed_mla_give_the_expected_logits(golden, form, ends, monkeypatch):
    model, tokens, expected = golden
    monkeypatch.setattr(model, "form", form)
    assert relative_error(in_chunks(model, tokens, *ends), expected) <= TOLERANCE


@every_moe_model
def test_the_observer_gets_the_routing_of_every_moe_layer(golden):
    model, tokens, _ = golden
    seen = {}
    model.forward(tokens, model.new_cache(len(tokens)), observe=lambda layer, experts: seen.update({layer: experts}))
    assert list(seen) == [layer for layer in range(model.spec.n_layers) if model.spec.is_moe_layer(layer)]
    for experts in seen.values():
        assert experts.shape == (len(tokens), model.spec.moe.n_experts_per_token)
        assert np.unique(experts).size > model.spec.moe.n_routed_experts // 2  # otherwise the routing is hardly tested


@pytest.mark.parametrize("name", NAMES)
def test_kernels_without_dequantized_copies_give_the_expected_logits(name):
    model, tokens, expected = load(name, ReferenceKernels(dense_bytes=0))
    assert relative_error(in_chunks(model, tokens, 40), expected) <= TOLERANCE


@needs_native
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ends", [(), (1, 8, 9, 41)], ids=["one pass", "chunks"])
def test_native_kernels_give_the_published_logits(name, ends):
    model, tokens, expected = load(name, kernels_of(""))
    assert relative_error(in_chunks(model, tokens, *ends), expected) <= TOLERANCE


def test_the_page_of_models_is_up_to_date():
    subprocess.run([sys.executable, GOLDEN.parents[1] / "docs" / "make_models.py", "--check"], check=True)


def test_checkpoints_of_the_table_are_read():
    listed = {name: row for row in MODELS for name in row.checkpoints}
    assert listed.keys() == PUBLISHED.keys()
    for name, row in listed.items():
        assert PUBLISHED[name]["architectures"] == [row.architecture]
