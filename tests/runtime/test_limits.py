"""What a device's plan decides about a load, from headers alone."""

import msgspec
import pytest

from sprat.devices.profile import load_profile
from sprat.errors import DoesNotFitError, InputError
from sprat.export.gguf.random_weights import write_shape
from sprat.runtime.backends.native import NativeLoader
from sprat.runtime.backends.registry import LoadRequest
from sprat.runtime.footprint import file_footprint
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.limits import load_limits
from sprat.runtime.open_model import open_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("shapes") / "small.gguf"
    write_shape(path, "smollm2-135m", "int4", layers=2)
    return open_model(path)


@pytest.fixture
def board(monkeypatch):
    """Makes every device one whose system leaves this many bytes."""

    def leave(usable_bytes):
        found = load_profile("rpi5-8gb")
        kept = msgspec.structs.replace(found.memory.system_bytes, value=found.memory.total_bytes.value - usable_bytes)
        small = msgspec.structs.replace(found, memory=msgspec.structs.replace(found.memory, system_bytes=kept))
        monkeypatch.setattr("sprat.runtime.limits.load_profile", lambda _name: small)

    return leave


def test_without_a_device_the_machine_and_the_user_decide(model):
    limits = load_limits(model, memory="3GB", context=1000)
    assert (limits.context, limits.batch, limits.memory_bytes) == (1000, 256, 3 * 10**9)
    assert load_limits(model).memory_bytes is None


def test_a_device_gives_threads_batch_and_budget(model):
    limits = load_limits(model, device="rpi-zero-2w")
    assert 1 <= limits.n_threads <= 4
    assert limits.context == 4096
    assert limits.batch in {32, 64, 128, 256, 512}
    assert limits.memory_bytes == load_profile("rpi-zero-2w").usable_bytes


def test_a_tight_device_keeps_the_cache_in_int8_and_a_tighter_one_caps_the_context(model, board):
    whole = file_footprint(model.spec, model.file, context=4096)
    small = file_footprint(model.spec, model.file, context=4096, cache="int8")
    assert load_limits(model, device="rpi5-8gb").cache == "f16"
    board(whole.total_bytes - 1000 * whole.cache_bytes_per_token)
    tight = load_limits(model, device="tight")
    assert (tight.cache, tight.context) == ("int8", 4096)
    board(small.total_bytes - small.cache_bytes + 2000 * small.cache_bytes_per_token)
    tighter = load_limits(model, device="tighter")
    assert (tighter.cache, tighter.context) == ("int8", 1792)  # 2000 in steps of 256
    with pytest.raises(DoesNotFitError, match=r"a context of 2,000 tokens would fit"):
        load_limits(model, device="tighter", context=4096)


def test_what_a_device_cannot_hold_is_refused_and_force_goes_on(model, board):
    board(10**6)
    with pytest.raises(DoesNotFitError, match=r"does not fit on rpi5-8gb: [\d,]+ bytes too large .* --force"):
        load_limits(model, device="tiny")
    assert load_limits(model, device="tiny", force=True).memory_bytes is None
    assert load_limits(model, device="tiny", memory="3GB").memory_bytes == 3 * 10**9


def test_a_mixture_that_streams_has_no_hard_budget(v2_lite_gguf, board):
    model = open_model(v2_lite_gguf)
    whole = file_footprint(model.spec, model.file)
    board(whole.total_bytes - whole.routed_bytes // 2)
    streamed = load_limits(model, device="small", context=4096)
    assert streamed.streams
    assert streamed.memory_bytes is None
    board(whole.total_bytes)
    enough = load_limits(model, device="enough", context=4096)
    assert not enough.streams
    assert enough.memory_bytes == whole.total_bytes


def test_a_context_beyond_the_model_is_refused(model):
    with pytest.raises(InputError, match="expected 1 to 8192"):
        load_limits(model, context=8193)


def test_threads_keep_to_the_fast_cores_of_a_device_with_little_ones(model, monkeypatch):
    phone = dict(enumerate([1.7] * 4 + [2.37] * 4 + [2.91]))
    monkeypatch.setattr("sprat.devices.machine.core_clocks", lambda: phone)
    assert load_limits(model, device="pixel-8", force=True).cores == (8, 4, 5, 6, 7)
    assert load_limits(model, device="rpi5-8gb").cores == ()
    assert load_limits(model).cores == ()


def test_the_native_backend_pins_the_threads_that_it_starts(model, monkeypatch):
    pinned = []

    def kernels(n_threads, *, cores, exact):
        assert not exact
        pinned.append((n_threads, cores))
        return ReferenceKernels()

    monkeypatch.setattr("sprat.runtime.backends.native.NativeKernels", kernels)
    request = LoadRequest(file=model.file, spec=model.spec, context=16, n_threads=5, cores=(8, 4, 5, 6, 7))
    NativeLoader().load(request)
    assert pinned == [(5, (4, 5, 6, 7))]
