"""A provider is compared with the CPU before it computes; what the child finds is made up here."""

import math
from types import SimpleNamespace

import pytest

pytest.importorskip("onnxruntime")

from sprat.errors import BackendError
from sprat.runtime.backends.providers import check
from sprat.runtime.backends.providers.check import check_provider
from sprat.runtime.backends.providers.placement import ProviderUse
from sprat.runtime.backends.providers.settings import ProviderSettings

WEBGPU = ProviderSettings.of("webgpu")


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """A model; and what its child finds, with how often it ran."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"graph")
    found = {"prompt_error": 1e-4, "decode_error": 1e-4, "problem": ""}
    model = SimpleNamespace(path=path, files=lambda: [path], found=found, runs=[])

    def use(_path, provider):
        model.runs.append(provider)
        numbers = {"version": "1.27.0", "n_nodes": 50, "n_fallback_nodes": 0, "fallback": ()}
        return ProviderUse(provider=provider.name, **numbers, **found)

    monkeypatch.setattr(check, "provider_use", use)
    monkeypatch.setattr(check, "missing_because", lambda: "")
    return model


def test_a_provider_that_is_right_is_tried_once(tried):
    check_provider(tried, WEBGPU)
    check_provider(tried, WEBGPU)
    assert tried.runs == [WEBGPU]


def test_other_options_drivers_and_files_are_tried_again(tried, monkeypatch):
    check_provider(tried, WEBGPU)
    check_provider(tried, ProviderSettings.of("webgpu", {"powerPreference": "low-power"}))
    monkeypatch.setenv("VK_ICD_FILENAMES", "/another/driver.json")
    check_provider(tried, WEBGPU)
    tried.path.write_bytes(b"another graph")
    check_provider(tried, WEBGPU)
    assert len(tried.runs) == 4


@pytest.mark.parametrize("error", [0.3, math.nan, math.inf])
@pytest.mark.parametrize("what", ["prompt", "decode"])
def test_wrong_logits_are_an_error_every_time(tried, what, error):
    tried.found[f"{what}_error"] = error
    for _ in range(2):
        with pytest.raises(BackendError, match=r"webgpu computes .* wrongly with this driver: .*--portable"):
            check_provider(tried, WEBGPU)
    assert len(tried.runs) == 2


def test_a_graph_that_the_provider_refuses_is_an_error(tried):
    tried.found.update(problem="SIGSEGV: device lost", prompt_error=None, decode_error=None)
    with pytest.raises(BackendError, match=r"webgpu fails on this graph \(SIGSEGV: device lost\); leave the provider"):
        check_provider(tried, WEBGPU)


def test_without_onnxruntime_there_is_an_error(tried, monkeypatch):
    monkeypatch.setattr(check, "missing_because", lambda: "onnxruntime not installed; pip install 'sprat[onnx]'")
    with pytest.raises(BackendError, match="onnxruntime not installed"):
        check_provider(tried, WEBGPU)
