"""Load limits from a device's plan, computed from file headers."""

import json

import msgspec
import pytest
from tiny_checkpoint import weights, write_checkpoint, write_weights

from sprat.devices.affinity import Threads
from sprat.devices.profile import load_profile
from sprat.errors import DoesNotFitError, InputError
from sprat.export.gguf.random_weights import write_preset
from sprat.export.pipeline import export
from sprat.runtime.backends.native import NativeLoader
from sprat.runtime.backends.registry import LoadRequest
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.loading.limits import load_limits
from sprat.runtime.memory.footprint import file_footprint
from sprat.runtime.memory.key_bias import has_large_key_bias
from sprat.runtime.open_model import open_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("shapes") / "small.gguf"
    write_preset(path, "smollm2-135m", "int4", layers=2)
    return open_model(path)


@pytest.fixture
def board(monkeypatch):
    """A function that makes every device one with this many usable bytes."""

    def use(usable_bytes):
        profile = load_profile("rpi5-8gb")
        memory = profile.memory
        system = msgspec.structs.replace(memory.system_bytes, value=memory.total_bytes.value - usable_bytes)
        small = msgspec.structs.replace(profile, memory=msgspec.structs.replace(memory, system_bytes=system))
        monkeypatch.setattr("sprat.runtime.loading.limits.find_profile", lambda _name: small)

    return use


def test_without_a_device_the_arguments_decide(model):
    limits = load_limits(model, memory="3GB", context=1000)
    assert (limits.context, limits.batch, limits.memory_bytes) == (1000, 256, 3 * 10**9)
    assert load_limits(model).memory_bytes is None


def test_in_a_container_its_memory_is_the_limit(model, monkeypatch):
    monkeypatch.setattr("sprat.runtime.loading.limits.container_memory_bytes", lambda: 10**9)
    assert load_limits(model).memory_bytes == 10**9
    assert load_limits(model, memory="2GB").memory_bytes == 2 * 10**9
    assert load_limits(model, force=True).memory_bytes is None
    assert load_limits(model, device="rpi5-8gb").memory_bytes == 10**9
    assert load_limits(model, device="rpi-zero-2w").memory_bytes == load_profile("rpi-zero-2w").usable_bytes


@pytest.mark.parametrize("device", [None, "rpi5-8gb"])
def test_the_quota_and_the_big_cores_decide_threads(model, monkeypatch, device):
    monkeypatch.setattr("sprat.runtime.loading.limits.default_threads", lambda: Threads(2, (5, 4)))
    limits = load_limits(model, device=device)
    assert (limits.n_threads, limits.cores) == (2, (5, 4))


def test_a_device_decides_threads_batch_and_memory(model):
    limits = load_limits(model, device="rpi-zero-2w")
    assert 1 <= limits.n_threads <= 4
    assert limits.context == 4096
    assert limits.batch in {32, 64, 128, 256, 512}
    assert limits.memory_bytes == load_profile("rpi-zero-2w").usable_bytes


def test_less_memory_first_gives_a_shorter_batch_then_an_int8_cache_and_then_a_shorter_context(model, board):
    whole = file_footprint(model.spec, model.file, context=4096)
    shortest = whole.of_batch(32)
    small = file_footprint(model.spec, model.file, context=4096, cache="int8").of_batch(32)
    assert load_limits(model, device="rpi5-8gb").cache == "f16"
    board(whole.of_batch(64).total_bytes)
    short = load_limits(model, device="short")
    assert (short.cache, short.context, short.batch) == ("f16", 4096, 64)
    board(shortest.total_bytes - 1000 * shortest.cache_bytes_per_token)
    tight = load_limits(model, device="tight")
    assert (tight.cache, tight.context) == ("int8", 4096)
    board(small.total_bytes - small.cache_bytes + 2000 * small.cache_bytes_per_token)
    tighter = load_limits(model, device="tighter")
    assert (tighter.cache, tighter.context) == ("int8", 1792)  # 2000 in steps of 256
    with pytest.raises(DoesNotFitError, match=r"use a context of at most 1,792 tokens"):
        load_limits(model, device="tighter", context=4096)


@pytest.fixture(scope="module")
def with_key_bias(tmp_path_factory):
    """A function: the largest element of a key bias -> an open Qwen2 with it."""

    def write(largest):
        sizes = {
            "hidden_size": 128,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 8192,
        }
        folder = write_checkpoint(tmp_path_factory.mktemp("qwen2") / "source", "qwen2", **sizes)
        tensors = weights(json.loads((folder / "config.json").read_text()))
        for name in tensors:
            if name.endswith("k_proj.bias"):
                tensors[name][:] = 0.5
        tensors[name_of_last_key_bias(tensors)][3] = -largest
        write_weights(folder / "model.safetensors", tensors)
        return open_model(export(folder, folder.parent / "out", quant="f32").bundle.path)

    return write


def name_of_last_key_bias(tensors):
    return max(name for name in tensors if name.endswith("k_proj.bias"))


def test_with_a_large_key_bias_a_shorter_context_comes_before_int8(with_key_bias, board):
    plain, biased = with_key_bias(2.0), with_key_bias(300.0)
    assert [has_large_key_bias(model.file) for model in (plain, biased)] == [False, True]
    whole, small = (file_footprint(plain.spec, plain.file, context=4096, cache=cache) for cache in ("f16", "int8"))
    board(small.total_bytes)
    limits = [load_limits(model, device="tight") for model in (plain, biased)]
    assert (limits[0].cache, limits[0].context) == ("int8", 4096)
    assert limits[1].cache == "f16"
    assert 512 <= limits[1].context < 4096
    assert load_limits(biased, device="tight", context=4096).cache == "int8"
    assert load_limits(biased, device="tight", context=512).cache == "f16"
    shortest = whole.of_batch(32)
    board(shortest.total_bytes - shortest.cache_bytes + 500 * shortest.cache_bytes_per_token)
    assert load_limits(biased, device="tighter").cache == "int8"  # 500 tokens in f16 are too few


def test_a_model_that_does_not_fit_is_an_error_unless_forced(model, board):
    board(10**6)
    with pytest.raises(DoesNotFitError, match=r"on rpi5-8gb needs .* more than .* --force"):
        load_limits(model, device="tiny")
    assert load_limits(model, device="tiny", force=True).memory_bytes is None
    assert load_limits(model, device="tiny", memory="3GB").memory_bytes == 3 * 10**9


def test_an_moe_model_with_expert_streaming_has_no_hard_limit(v2_lite_gguf, board):
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


def test_a_context_longer_than_the_model_s_is_an_error(model):
    with pytest.raises(InputError, match="expected 1 to 8192"):
        load_limits(model, context=8193)


def test_threads_are_pinned_to_the_fast_cores_of_a_device_with_little_cores(model, monkeypatch):
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


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"context": "4096"}, "context is '4096', expected 1 to"),
        ({"context": 1.5}, "context is 1.5, expected 1 to"),
        ({"context": True}, "context is True, expected 1 to"),
        ({"device": 5}, "device is 5, expected the name of a profile"),
    ],
)
def test_arguments_of_another_type_are_an_error(model, wrong, message):
    with pytest.raises(InputError, match=message):
        load_limits(model, **wrong)
