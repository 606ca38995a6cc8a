"""A model that the memory of a provider's device does not hold is refused with sizes before anything is loaded."""

import re

import pytest
from tiny_checkpoint import write_checkpoint

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

from sprat.errors import DoesNotFitError
from sprat.export.pipeline import export
from sprat.runtime.backends.onnx import backend
from sprat.runtime.backends.providers.free_memory import FreeMemory
from sprat.runtime.backends.providers.settings import ProviderSettings
from sprat.runtime.backends.registry import LoadRequest, choose
from sprat.runtime.open_model import open_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    source = write_checkpoint(folder / "tiny")
    return open_model(export(source, folder / "out", quant="f32", formats=["onnx"]).bundle.artifact("onnx"), "onnx")


@pytest.fixture
def card(monkeypatch):
    """Sets what is free on the device; ``None`` where nothing says it."""

    def free(n_bytes):
        found = None if n_bytes is None else FreeMemory(n_bytes, "nvidia-smi")
        monkeypatch.setattr(backend, "free_memory", lambda _provider, _accelerator: found)

    return free


def chosen(model, provider="webgpu", context=512, **options):
    settings = ProviderSettings.of(provider)
    request = LoadRequest(file=model.file, spec=model.spec, context=context, n_threads=1, provider=settings, **options)
    return choose("onnx", request)


def needed(model, context):
    file, spec = model.file, model.spec
    weights = sum(info.nbytes for info in file.tensors.values())
    return weights + 2 * 4 * spec.cache_elements_per_token * context


def test_what_is_planned_and_what_is_free_is_said(model, card):
    card(4 << 30)
    assert re.fullmatch(
        r"onnx with webgpu \([\d.]+ MiB on its device, of 4\.0 GiB by nvidia-smi\)", chosen(model).text()
    )
    card(None)
    assert chosen(model).text().endswith("MiB on its device, whose free memory nothing says)")


def test_a_model_that_the_device_does_not_hold_is_refused_unless_forced(model, card):
    card(needed(model, 512))  # without activations
    with pytest.raises(DoesNotFitError) as refused:
        chosen(model)
    assert re.search(
        r"onnx: webgpu needs .* of its device \(weights .*, KV cache for 512 tokens, twice, .*, activations .*\), .* "
        r"more than the .* that are free there by nvidia-smi; use a .*, or leave the provider out$",
        str(refused.value),
    )
    assert chosen(model, force=True).provider == "webgpu"


def test_a_shorter_context_that_is_named_fits(model, card):
    card(needed(model, 512) + (4 << 20))
    with pytest.raises(DoesNotFitError, match=r"use a context of at most ([\d,]+) tokens") as refused:
        chosen(model, context=2048)
    named = int(re.search(r"at most ([\d,]+) tokens", str(refused.value))[1].replace(",", ""))
    assert chosen(model, context=named).on_device


def test_a_provider_in_the_cpus_memory_has_no_such_plan(model, card):
    card(0)
    assert chosen(model, "openvino").text() == "onnx with openvino"
