"""Planned footprints against exported files, caches and the calls of a forward pass."""

import dataclasses
import json

import pytest
from tiny_checkpoint import CONFIGS, write_checkpoint

from sprat.export.pipeline import export
from sprat.export.source.checkpoint import Checkpoint
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.kernels.reference import ReferenceKernels
from sprat.runtime.memory.footprint import cache_bytes_per_token, planned_footprint
from sprat.runtime.models import Model


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("quant", ["int4", "int8", "q4_k"])
def test_planned_bytes_are_those_of_the_export(tmp_path, architecture, quant):
    source = write_checkpoint(tmp_path / "source", architecture)
    spec = spec_from_config(json.loads((source / "config.json").read_text()))
    recipe = Recipe.named(quant, tied_embeddings=spec.tied_embeddings)
    footprint = planned_footprint(spec, recipe)
    groups = export(source, tmp_path / "out", quant=quant, quality="none").groups
    assert footprint.weight_bytes == sum(group.size_bytes for group in groups)
    assert footprint.routed_bytes == sum(group.size_bytes for group in groups if group.role.endswith("_exps"))


def test_the_cache_has_int8_latents_and_the_context_is_at_most_the_models():
    spec = spec_from_config(CONFIGS["deepseek2"])
    footprint = planned_footprint(spec, Recipe.named("int4"))
    assert footprint.cache_bytes_per_token == 4 * (64 + 2 * (2 + 2) + 2 * 16)  # layers; codes, scales and sums, rope
    assert footprint.context == spec.max_context == 512
    longer = dataclasses.replace(spec, max_context=163_840)
    assert planned_footprint(longer, Recipe.named("int4")).context == 4096
    assert planned_footprint(longer, Recipe.named("int4"), context=10_000).context == 10_000


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("cache", ["f16", "int8"])
def test_planned_cache_bytes_are_those_of_the_cache(architecture, cache, tmp_path):
    source = write_checkpoint(tmp_path / "source", architecture)
    spec = spec_from_config(json.loads((source / "config.json").read_text()))
    model = Model(spec, Checkpoint.open(source), ReferenceKernels())
    assert 7 * cache_bytes_per_token(spec, cache) == model.new_cache(7, cache).nbytes


class CountingKernels:
    """Counts the kernel calls of a model."""

    def __init__(self):
        self._kernels, self.n_calls = ReferenceKernels(), 0

    def __getattr__(self, name):
        self.n_calls += 1
        return getattr(self._kernels, name)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_planned_calls_are_those_of_a_forward_pass(architecture, tmp_path):
    source = write_checkpoint(tmp_path / "source", architecture)
    spec = spec_from_config(json.loads((source / "config.json").read_text()))
    kernels = CountingKernels()
    model = Model(spec, Checkpoint.open(source), kernels)
    kernels.n_calls = 0
    model.forward([1], model.new_cache(1))
    assert planned_footprint(spec, Recipe.named("int4")).pass_cost.n_calls == kernels.n_calls
