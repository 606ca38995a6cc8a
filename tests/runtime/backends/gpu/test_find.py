"""GPUs are found in a child process; one that a driver kills is an error here. The children are real."""

import os
import sys

import pytest

from sprat.errors import BackendError
from sprat.runtime.backends.gpu import find
from sprat.runtime.backends.gpu.attention_shape import AttentionShape
from sprat.runtime.backends.gpu.find import GPUDevice, find_gpus

# A library with a CPU, a card and an integrated GPU, whose backends are loaded on request; it prints as llama.cpp does.
LIBRARY = """
import sys
class Ggml:
    _name = "/opt/llama/libllama.so"
    devices = []
    def ggml_backend_load_all_from_path(self, folder):
        assert folder == b"/opt/llama"
        print("load_backend: loaded Vulkan backend")
        self.devices += [(b"CPU", b"a CPU", 0), (b"Vulkan0", b"a card", 1), (b"Vulkan1", b"a chip", 2)]
    def ggml_backend_dev_count(self): return len(self.devices)
    def ggml_backend_dev_get(self, index): return index
    def ggml_backend_dev_name(self, device): return self.devices[device][0]
    def ggml_backend_dev_description(self, device): return self.devices[device][1]
    def ggml_backend_dev_type(self, device): return self.devices[device][2]
    def ggml_backend_dev_memory(self, device, free, total): free._obj.value, total._obj.value = 3 << 30, 4 << 30
    def ggml_backend_dev_by_name(self, name): return None
    def ggml_backend_dev_by_type(self, kind): return 0
    def ggml_backend_dev_buffer_type(self, device): return 1
    def ggml_init(self, params): return 1
    def ggml_free(self, context): pass
    def ggml_new_tensor_4d(self, context, kind, *sizes): return kind
    def ggml_flash_attn_ext(self, context, queries, keys, values, mask, *scales): return keys
    def ggml_backend_dev_supports_op(self, device, keys): return keys in (1, 8)
def declared(function):
    import functools
    @functools.wraps(function)
    def call(*arguments): return function(*arguments)
    return call
class llama_cpp:
    _lib = Ggml()
for name in [name for name in dir(Ggml) if name.startswith("ggml_")]:
    setattr(llama_cpp._lib, name, declared(getattr(llama_cpp._lib, name)))
"""


@pytest.fixture
def llama_cpp(tmp_path, monkeypatch):
    """Writes a fake llama_cpp module for the children."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    return (tmp_path / "llama_cpp.py").write_text


def test_gpus_are_listed_without_the_cpu(llama_cpp):
    llama_cpp(LIBRARY)
    card, chip = find_gpus()
    memory = {"free_bytes": 3 << 30, "total_bytes": 4 << 30}
    assert card == GPUDevice(name="Vulkan0", description="a card", integrated=False, **memory)
    assert (chip.name, chip.integrated) == ("Vulkan1", True)


@pytest.mark.parametrize(("width", "caches"), [(64, ("f16", "int8")), (40, ("f16",))])
def test_the_driver_is_asked_for_flash_attention_with_each_cache_that_has_whole_blocks(llama_cpp, width, caches):
    llama_cpp(LIBRARY)
    card, _chip = find_gpus(AttentionShape(n_heads=8, n_kv_heads=2, key_width=width, value_width=64))
    assert card.flash_attention == caches


def test_a_driver_that_aborts_is_an_error_with_its_last_words(llama_cpp):
    llama_cpp("import os, sys\nprint('vk::DeviceLostError', file=sys.stderr, flush=True)\nos.abort()")
    with pytest.raises(BackendError, match=r"ended a child process \(SIGABRT: vk::DeviceLostError\).*update the GPU's"):
        find_gpus()


def test_a_library_without_device_functions_is_an_error(llama_cpp):
    llama_cpp("class llama_cpp:\n    class _lib:\n        _name = '/opt/old.so'")
    with pytest.raises(BackendError, match=r"exit code 1: /opt/old.so: this build of llama.cpp has no functions"):
        find_gpus()


def test_a_driver_that_hangs_is_an_error(llama_cpp, monkeypatch):
    llama_cpp("import time\ntime.sleep(60)")
    monkeypatch.setattr(find, "_TIMEOUT_SECONDS", 0.5)
    with pytest.raises(BackendError, match=r"took more than 0\.5 s; check the driver"):
        find_gpus()


def test_without_llama_cpp_python_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(BackendError, match="llama-cpp-python is not installed"):
        find_gpus()
