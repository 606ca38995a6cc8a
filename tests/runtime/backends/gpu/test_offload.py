"""llama.cpp's parameters for a placement."""

import ctypes
import re
from types import SimpleNamespace

import pytest

from sprat.devices.plan.placement import Placement
from sprat.errors import BackendError
from sprat.runtime.backends.gpu import ggml as ggml_module
from sprat.runtime.backends.gpu import offload
from sprat.runtime.backends.gpu.install import gpu_install_commands, likely_kind
from sprat.runtime.backends.gpu.offload import Offload, experts_pattern


def addresses(pointer, count):
    return ctypes.cast(pointer, ctypes.POINTER(ctypes.c_void_p))[:count]


def test_without_a_placement_no_device_is_used():
    params, nothing = SimpleNamespace(), Offload(None, "")
    nothing.set(params)
    assert params.n_gpu_layers == 0
    assert addresses(params.devices, 1) == [None]


def test_a_placement_sets_device_layers_and_overrides(monkeypatch):
    monkeypatch.setattr(offload, "device_named", {"Vulkan0": 7}.__getitem__)
    monkeypatch.setattr(offload, "host_buffer_type", lambda: 9)
    params = SimpleNamespace()
    partial = Offload(Placement(n_layers=5, layers=3, head=True, experts_in_memory=(3, 4)), "Vulkan0")
    partial.set(params)
    assert params.n_gpu_layers == 4  # the head counts as one
    assert addresses(params.devices, 2) == [7, None]
    pattern, buffer_type, end = addresses(params.tensor_buft_overrides, 3)
    assert ctypes.string_at(pattern) == experts_pattern((3, 4))
    assert (buffer_type, end) == (9, None)


def test_the_pattern_matches_the_experts_of_its_layers_only():
    pattern = re.compile(experts_pattern((1, 26)).decode())
    names = ("blk.1.ffn_up_exps.weight", "blk.26.ffn_down_exps.weight", "blk.1.ffn_gate_up_exps.weight")
    assert all(pattern.search(name) for name in names)
    others = ("blk.11.ffn_up_exps.weight", "blk.1.ffn_up_shexp.weight", "blk.1.ffn_gate_inp.weight")
    assert not any(pattern.search(name) for name in others)


def test_a_device_that_is_gone_is_an_error(monkeypatch):
    library = SimpleNamespace(ggml_backend_dev_by_name=lambda _name: None)
    monkeypatch.setattr(ggml_module, "ggml", lambda: library)
    with pytest.raises(BackendError, match="the GPU CUDA0 is gone"):
        Offload(Placement(n_layers=1, layers=1, head=True), "CUDA0").set(SimpleNamespace())


def test_every_kind_of_gpu_has_an_install_command():
    commands = gpu_install_commands()
    assert list(commands) == ["cuda", "vulkan", "metal", "sycl", "opencl"]
    for kind, command in commands.items():
        assert f"-DGGML_{kind.upper()}=ON" in command
        assert "-DGGML_NATIVE=OFF" in command
        assert "--no-binary llama-cpp-python" in command


@pytest.mark.parametrize(
    ("mark", "kind"),
    [
        ("proc/driver/nvidia", "cuda"),
        ("dev/kgsl-3d0", "opencl"),
        ("opt/intel/oneapi/compiler", "sycl"),
        ("dev/dri", "vulkan"),
        ("dev", None),
    ],
)
def test_the_driver_files_tell_the_kind(tmp_path, monkeypatch, mark, kind):
    monkeypatch.setattr("sys.platform", "linux")
    (tmp_path / mark).mkdir(parents=True)
    assert likely_kind(tmp_path) == kind
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert likely_kind(tmp_path) == "metal"
