"""Providers and their options: names, sprat's values, those of device profiles, and the caller's."""

from types import SimpleNamespace

import pytest

from sprat.devices.profile import load_profile, profile_names
from sprat.errors import BackendError, InputError
from sprat.runtime.backends.onnx import session as onnx_session
from sprat.runtime.backends.onnx.session import open_session
from sprat.runtime.backends.providers.names import CPU, install_hint
from sprat.runtime.backends.providers.settings import ProviderSettings

NAMES = ("coreml", "cuda", "directml", "openvino", "qnn", "webgpu")


@pytest.mark.parametrize("name", NAMES)
def test_a_providers_own_options_are_among_those_that_are_documented(name):
    settings = ProviderSettings.of(name)
    assert ProviderSettings.of(name, dict(settings.options)) == settings
    [(full, options), fallback] = settings.session_providers()
    assert full.endswith("ExecutionProvider")
    assert (options, fallback) == (dict(settings.options), CPU)


@pytest.mark.parametrize("device", profile_names())
def test_the_options_of_every_profile_are_known(device):
    card = load_profile(device).accelerator
    for name in NAMES:
        assert ProviderSettings.of(name, None, card).name == name


def test_a_card_limits_cuda_to_its_memory():
    card = load_profile("home-8c-16gb-8gpu").accelerator
    assert ProviderSettings.of("cuda", None, card).options["gpu_mem_limit"] == str(8 << 30)
    assert ProviderSettings.of("openvino", None, card).options["device_type"] == "GPU"
    assert ProviderSettings.of("openvino").options["device_type"] == "CPU"


def test_the_callers_options_replace_the_profiles():
    card = load_profile("home-8c-16gb-8gpu").accelerator
    options = ProviderSettings.of("cuda", {"gpu_mem_limit": "1", "device_id": "1"}, card).options
    assert options == {"arena_extend_strategy": "kSameAsRequested", "gpu_mem_limit": "1", "device_id": "1"}


def test_an_unknown_provider_or_option_is_an_error_that_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown provider 'metal'.*coreml, cuda, directml, openvino, qnn, webgpu"):
        ProviderSettings.of("metal")
    with pytest.raises(InputError, match=r"unknown option of the provider cuda 'gpu_memlimit'; .* 'gpu_mem_limit'"):
        ProviderSettings.of("cuda", {"gpu_memlimit": "1"})
    with pytest.raises(InputError, match="expected a dict of texts"):
        ProviderSettings.of("cuda", {"device_id": 1})


def test_every_provider_has_a_line_that_installs_it():
    lines = {name: install_hint(name) for name in NAMES}
    assert lines["webgpu"].startswith("pip install --no-deps --target onnxruntime-webgpu 'onnxruntime-webgpu'")
    assert "onnxruntime-qnn<2" in lines["qnn"]
    assert "on a Mac" in lines["coreml"]


@pytest.fixture
def library(monkeypatch):
    """onnxruntime with a WebGPU provider, whose sessions have the providers of ``started``."""
    found = SimpleNamespace(started=["WebGpuExecutionProvider", CPU])
    session = SimpleNamespace(get_providers=lambda: found.started)
    fake = SimpleNamespace(
        __version__="1.27.0",
        get_available_providers=lambda: ["WebGpuExecutionProvider", CPU],
        InferenceSession=lambda *_, **__: session,
        SessionOptions=lambda: SimpleNamespace(add_session_config_entry=lambda *_: None),
    )
    monkeypatch.setattr(onnx_session, "onnxruntime", lambda: fake)
    return found


def test_a_provider_that_onnxruntime_lacks_is_an_error_with_the_line(library, tmp_path):
    with pytest.raises(BackendError, match=r"1\.27\.0 has no CUDAExec.*only WebGpu.*pip install .* onnxruntime-gpu"):
        open_session(tmp_path / "model.onnx", n_threads=1, provider=ProviderSettings.of("cuda"))


def test_a_provider_that_does_not_start_is_an_error_and_not_the_cpu(library, tmp_path):
    webgpu = ProviderSettings.of("webgpu")
    assert open_session(tmp_path / "model.onnx", n_threads=1, provider=webgpu)
    library.started = [CPU]
    with pytest.raises(BackendError, match=r"with webgpu \(WebGpuExecutionProvider does not start.*leave the provider"):
        open_session(tmp_path / "model.onnx", n_threads=1, provider=webgpu)
