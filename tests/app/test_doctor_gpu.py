"""What ``doctor`` says about GPUs; the GPUs are made up."""

import pytest
from command_line import run
from tiny_checkpoint import write_checkpoint

from sprat.app import doctor as doctor_module
from sprat.app.doctor import doctor
from sprat.errors import BackendError
from sprat.export.pipeline import export
from sprat.runtime.backends.gpu import install, place
from sprat.runtime.backends.gpu.find import GPUDevice

CARD = GPUDevice(name="Vulkan0", description="a card", integrated=False, free_bytes=3 << 30, total_bytes=4 << 30)


@pytest.fixture
def found(monkeypatch):
    """Sets what looking for GPUs finds, or the error that it ends with."""

    def set_found(gpus=(), error=None):
        def find(_shape=None):
            if error:
                raise error
            return list(gpus)

        monkeypatch.setattr(doctor_module, "find_gpus", find)
        monkeypatch.setattr(place, "find_gpus", find)

    return set_found


def test_a_gpu_is_listed_with_its_free_memory(found, capsys):
    found([CARD])
    assert doctor().gpus == (CARD,)
    _, out, _ = run(capsys, "doctor")
    assert "GPU Vulkan0        a card, 3.0 GiB of 4.0 GiB free" in out


def test_a_model_gets_a_placement(found, tmp_path):
    found([CARD])
    bundle = export(write_checkpoint(tmp_path / "tiny", "llama"), tmp_path / "out", quant="int8").path
    detail = doctor(bundle).gpu_detail
    assert detail.startswith("Vulkan0 (a card): 4 of 4 layers and the head on the card; f16 cache, no flash attention")
    found([CARD.__class__(name="V", description="small", integrated=False, free_bytes=1, total_bytes=1)])
    assert doctor(bundle).gpu_detail.startswith("nothing: no part of the model fits V (small)")


@pytest.mark.parametrize("error", [None, BackendError("looking for GPUs ended a child process (SIGABRT)")])
def test_without_a_gpu_the_install_command_for_the_driver_that_is_there(found, monkeypatch, error, capsys):
    found(error=error)
    monkeypatch.setattr(install, "likely_kind", lambda: "cuda")
    detail = doctor().gpu_detail
    assert detail.startswith(str(error) if error else "none that this llama-cpp-python can use")
    assert "machine's (cuda): CMAKE_ARGS='-DGGML_NATIVE=OFF" in detail
    assert "-DGGML_CUDA=ON' pip install" in detail
    monkeypatch.setattr(install, "likely_kind", lambda: None)
    assert "of another kind than Apple's, with its driver: CMAKE_ARGS='-DGGML_NATIVE=OFF" in doctor().gpu_detail
    assert "\nGPU                " in run(capsys, "doctor")[1]
