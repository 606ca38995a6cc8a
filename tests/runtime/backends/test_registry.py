"""The choice of a backend: by name, or the preferred one that can run the file, with the reasons against others."""

from types import SimpleNamespace

import pytest

from sprat.devices.plan.context_settings import NO_WISHES
from sprat.devices.plan.footprint import Footprint
from sprat.devices.plan.placement import Placement
from sprat.errors import BackendError, DoesNotFitError
from sprat.runtime.backends import registry
from sprat.runtime.backends.gpu.use import GPUUse
from sprat.runtime.backends.registry import (
    BackendChoice,
    BackendLoader,
    LoadRequest,
    backend_names,
    choose,
    chosen_footprint,
    open_backend,
)
from sprat.runtime.gpu_option import GPU_OFF, GPUOption


@pytest.fixture
def add(monkeypatch):
    """Registers loaders in an empty registry, in order of preference."""
    monkeypatch.setattr(registry, "_LOADERS", {})
    monkeypatch.setattr(registry, "_FORMATS", {})

    def add_loader(name, *, why_not=None, n_bytes=1000):
        registry._FORMATS[name] = "gguf"

        class Loader(BackendLoader, name=name):
            def footprint(self, request):
                return Footprint(
                    quant="", resident_bytes=n_bytes, routed_bytes=0, cache_bytes_per_token=1, context=1, buffer_bytes=0
                )

            def why_not(self, request):
                return why_not

            def load(self, request):
                return f"{name} backend"

    return add_loader


def request(memory_bytes=None):
    return SimpleNamespace(
        wishes=NO_WISHES,
        file=SimpleNamespace(path="x.gguf", format="gguf"),
        memory_bytes=memory_bytes,
        deterministic=False,
        exact=False,
        gpu=GPU_OFF,
        provider=None,
    )


def test_every_backend_has_a_loader_and_reads_a_format():
    assert backend_names() == ["native", "reference", "llamacpp", "onnx"]
    for name in backend_names():
        assert registry._loader(name).name == name


def test_auto_takes_the_preferred_one(add):
    add("first")
    add("second")
    choice = choose("auto", request())
    assert choice == BackendChoice("first")
    assert open_backend(choice, request()) == "first backend"


def test_auto_skips_backends_that_cannot_run_the_file_and_has_their_reasons(add):
    add("native", why_not=BackendError("not built"))
    add("large", n_bytes=10**9)
    add("reference")
    choice = choose("auto", request(memory_bytes=10**6))
    assert choice.name == "reference"
    assert [name for name, _ in choice.passed_over] == ["native", "large"]
    assert choice.text().startswith(
        "reference; not native (not built); not large (x.gguf: the large backend needs 953.7 MiB"
    )


def test_a_named_backend_that_cannot_run_the_file_raises_its_reason(add):
    add("native", why_not=BackendError("not built"))
    add("reference")
    with pytest.raises(BackendError, match=r"^not built$"):
        choose("native", request())


def test_memory_is_checked_before_anything_else(add):
    add("large", n_bytes=10**9, why_not=BackendError("not built"))
    with pytest.raises(DoesNotFitError):
        choose("large", request(memory_bytes=10**6))


def test_the_error_without_a_usable_backend_has_all_reasons(add):
    add("native", why_not=BackendError("not built"))
    add("other", why_not=BackendError("not installed"))
    with pytest.raises(BackendError, match=r"no backend can run x.gguf: native: not built; other: not installed"):
        choose("auto", request())
    add("large", n_bytes=10**9)
    with pytest.raises(DoesNotFitError, match=r"not built.*large: x.gguf: the large backend needs"):
        choose("auto", request(memory_bytes=10**6))


def test_the_error_of_an_unknown_backend_suggests_the_nearest(add):
    add("reference")
    with pytest.raises(BackendError, match=r"unknown backend 'refernce'; did you mean 'reference'\? \(known: auto, r"):
        choose("refernce", request())


def test_two_backends_cannot_share_a_name(add):
    add("native")
    with pytest.raises(AssertionError, match="two backends"):
        add("native")


def test_a_backend_needs_a_line_in_the_registry():
    with pytest.raises(AssertionError, match="'other' has no line"):
        type("Loader", (BackendLoader,), {}, name="other")


@pytest.fixture
def on_gpu(add):
    """Adds a native loader and one with a GPU that fails with an error, or places."""
    add("native")

    def add_gpu(error=None):
        registry._FORMATS["card"] = "gguf"

        class Loader(BackendLoader, name="card"):
            uses_gpu = True

            def footprint(self, request):
                return Footprint(
                    quant="", resident_bytes=1000 if request.gpu_use else 10**9, routed_bytes=0,
                    cache_bytes_per_token=1, context=1, buffer_bytes=0,
                )  # fmt: skip

            def why_not(self, request):
                return None

            def place(self, request):
                if error:
                    raise error
                return GPUUse(device="V0", description="x", placement=Placement(n_layers=2, layers=2, head=True))

            def load(self, request):
                return request.gpu_use.device

    return add_gpu


def gpu_request(gpu, memory_bytes=None):
    file = SimpleNamespace(path="x.gguf", format="gguf")
    return LoadRequest(file=file, spec=None, context=1, n_threads=1, memory_bytes=memory_bytes, gpu=GPUOption.of(gpu))


def test_a_gpu_chooses_the_backend_that_computes_there(on_gpu):
    on_gpu()
    request = gpu_request("auto", memory_bytes=10**6)  # enough only because the weights are on the card
    choice = choose("auto", request)
    assert (
        choice.text() == "card on V0 (x): 2 of 2 layers and the head on the card; f16 cache, 512 prompt tokens a pass"
    )
    assert open_backend(choice, request) == "V0"
    assert chosen_footprint(choice, request).weight_bytes == 1000


def test_auto_falls_back_to_the_cpu_and_says_why(on_gpu):
    on_gpu(BackendError("no GPU found"))
    choice = choose("auto", gpu_request("auto"))
    assert choice.text() == "native on the CPU; no GPU (no GPU found)"
    for gpu in ("on", "1GB"):
        with pytest.raises(BackendError, match="no GPU found"):
            choose("auto", gpu_request(gpu))


def test_a_backend_without_a_gpu_says_so(on_gpu):
    on_gpu()
    with pytest.raises(BackendError, match=r"the native backend computes on the CPU; use backend='llamacpp' or gpu="):
        choose("native", gpu_request("on"))
    assert choose("native", gpu_request("auto")).no_gpu_because
    with pytest.raises(DoesNotFitError):
        choose("card", gpu_request("on", memory_bytes=10))
