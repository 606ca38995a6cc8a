"""Which placement a model gets on the GPUs that are found; the GPUs are made up, the model is the packaged student."""

import pytest
from tiny_checkpoint import write_checkpoint

from sprat.devices.plan.context_settings import ContextSettings, ContextWishes
from sprat.devices.plan.placement import Placement
from sprat.devices.profile import load_profile
from sprat.errors import BackendError, DoesNotFitError
from sprat.export.pipeline import export
from sprat.runtime.backends.gpu import place
from sprat.runtime.backends.gpu.attention_shape import AttentionShape
from sprat.runtime.backends.gpu.find import GPUDevice
from sprat.runtime.backends.gpu.place import place_on_gpu
from sprat.runtime.backends.llamacpp import LlamaCppLoader
from sprat.runtime.backends.registry import LoadRequest
from sprat.runtime.gpu_option import GPUOption
from sprat.runtime.memory.footprint import file_footprint
from sprat.runtime.open_model import open_model

SHAPE = AttentionShape(n_heads=4, n_kv_heads=1, key_width=40, value_width=32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    source = write_checkpoint(folder / "tiny", "deepseek2")
    return open_model(export(source, folder / "out", quant="f16").bundle.artifact())


@pytest.fixture
def footprint(model):
    return file_footprint(model.spec, model.file, context=64)


@pytest.fixture
def gpus(monkeypatch):
    """Sets the GPUs that are found: name and free bytes of each."""

    def found(*devices, integrated=False, flash=("f16", "int8", "int4")):
        listed = [
            GPUDevice(
                name=name,
                description="made up",
                integrated=integrated,
                free_bytes=free,
                total_bytes=8 << 30,
                flash_attention=flash,
            )
            for name, free in devices
        ]
        monkeypatch.setattr(place, "find_gpus", lambda _shape: listed)

    return found


def test_auto_puts_everything_on_a_card_that_holds_it(gpus, footprint, model):
    gpus(("Vulkan0", 1 << 30), ("CUDA0", 6 << 30))
    use = place_on_gpu(GPUOption.of("auto"), footprint, SHAPE)
    assert use.device == "CUDA0"  # the most free memory
    assert use.placement == Placement(n_layers=model.spec.n_layers, layers=model.spec.n_layers, head=True)
    assert use.experts_bytes == footprint.routed_bytes
    assert use.text().startswith("CUDA0 (made up): ")


def test_less_memory_holds_less(gpus, footprint):
    gpus(("Vulkan0", 1 << 30))
    whole = place_on_gpu(GPUOption.of("on"), footprint, SHAPE)
    less = place_on_gpu(GPUOption.of(whole.card_bytes - 1), footprint, SHAPE)
    assert less.placement != whole.placement
    assert less.card_bytes < whole.card_bytes
    assert less.dense_bytes + less.experts_bytes < whole.dense_bytes + whole.experts_bytes


def test_no_gpu_is_an_error_that_names_doctor(gpus, footprint):
    gpus()
    with pytest.raises(
        BackendError, match="finds no GPU: it is built for the CPU, or the driver is missing; sprat doc"
    ):
        place_on_gpu(GPUOption.of("auto"), footprint, SHAPE)


def test_too_little_memory_is_an_error_with_sizes(gpus, footprint):
    gpus(("Vulkan0", 1 << 20))
    with pytest.raises(DoesNotFitError, match=r"and the head on the card needs .* on Vulkan0 \(made up\).* gpu='auto'"):
        place_on_gpu(GPUOption.of("on"), footprint, SHAPE)
    with pytest.raises(BackendError, match="no part of the model fits Vulkan0"):
        place_on_gpu(GPUOption.of("auto"), footprint, SHAPE)
    with pytest.raises(DoesNotFitError, match="may be used"):
        place_on_gpu(GPUOption.of("auto"), footprint, SHAPE, memory_bytes=1)


def test_auto_leaves_an_integrated_gpu_of_unknown_speed_off(gpus, footprint):
    gpus(("Vulkan0", 1 << 30), integrated=True)
    with pytest.raises(BackendError, match="or is faster there"):
        place_on_gpu(GPUOption.of("auto"), footprint, SHAPE)
    assert place_on_gpu(GPUOption.of("1GB"), footprint, SHAPE).placement.layers
    gpus(("MTL0", 1 << 30), integrated=True)
    assert place_on_gpu(GPUOption.of("auto"), footprint, SHAPE).placement.layers


def test_auto_keeps_off_what_the_profile_says(gpus, footprint):
    gpus(("Vulkan0", 1 << 30))
    card = load_profile("rpi5-8gb").accelerator
    with pytest.raises(BackendError, match=r"VideoCore VII is better kept off: llama\.cpp's Vulkan"):
        place_on_gpu(GPUOption.of("auto"), footprint, SHAPE, accelerator=card)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_layers": 99, "layers": 1, "head": True},
        {"layers": 99, "head": True},
        {"layers": 1, "head": False},
        {"layers": 1, "head": True, "experts_in_memory": (0,)},
    ],
)
def test_a_placement_of_another_model_is_refused(gpus, footprint, model, wrong):
    gpus(("Vulkan0", 1 << 30))
    with pytest.raises(BackendError, match="the placement is for"):
        place_on_gpu(GPUOption.of(Placement(**({"n_layers": model.spec.n_layers} | wrong))), footprint, SHAPE)


def test_what_is_on_the_card_is_not_counted_in_memory(gpus, footprint, model):
    gpus(("Vulkan0", 1 << 30))
    request = {"file": model.file, "spec": model.spec, "context": 64, "n_threads": 1}
    on_cpu = LlamaCppLoader().footprint(LoadRequest(**request))
    use = place_on_gpu(GPUOption.of("on"), footprint, SHAPE)
    placed = LlamaCppLoader().footprint(LoadRequest(**request, gpu_use=use))
    assert placed.weight_bytes == on_cpu.weight_bytes - use.dense_bytes - use.experts_bytes
    assert (placed.routed_bytes, placed.cache_bytes) == (0, 0)


def free_for(n_bytes):
    """Free memory of which a tenth is left to the driver."""
    return -(-10 * n_bytes // 9)


def settings_of(footprint, gpu="on", **wishes):
    return place_on_gpu(GPUOption.of(gpu), footprint, SHAPE, wishes=ContextWishes(**wishes)).settings


def test_with_room_the_settings_are_the_best_that_the_card_has(gpus, footprint):
    gpus(("Vulkan0", 1 << 30))
    assert settings_of(footprint) == ContextSettings(cache="f16", flash_attention=True, batch=512)
    gpus(("Vulkan0", 1 << 30), flash=())
    assert settings_of(footprint) == ContextSettings(cache="f16", flash_attention=False, batch=512)


def test_settings_that_are_given_are_kept(gpus, footprint):
    gpus(("Vulkan0", 1 << 30))
    given = {"cache": "int4", "flash_attention": True, "batch": 96}
    assert settings_of(footprint, **given) == ContextSettings(**given)
    assert settings_of(footprint, flash_attention=False).flash_attention is False


def test_a_full_card_gets_shorter_passes_and_then_a_smaller_cache(gpus, model):
    gpus(("Vulkan0", 1 << 30))
    footprint = file_footprint(model.spec, model.file, context=model.spec.max_context)
    whole = {
        (cache, batch): place_on_gpu(
            GPUOption.of("on"), footprint, SHAPE, wishes=ContextWishes(cache=cache, batch=batch)
        ).card_bytes
        for cache in ("f16", "int8")
        for batch in (512, 256, 64)
    }
    assert whole["int8", 64] < whole["f16", 64]
    for cache, batch in (("f16", 512), ("f16", 256), ("f16", 64), ("int8", 64)):
        gpus(("Vulkan0", free_for(whole[cache, batch])))
        found = place_on_gpu(GPUOption.of("on"), footprint, SHAPE).settings
        assert (found.cache, found.batch) == (cache, batch)


def test_integers_need_flash_attention(gpus, footprint):
    gpus(("Vulkan0", 1 << 30), flash=("f16",))
    with pytest.raises(BackendError, match=r"Vulkan0 \(made up\) has no flash attention for this model's int8 cache"):
        settings_of(footprint, cache="int8")


def test_the_cache_in_memory_is_as_small_as_on_the_card(gpus, footprint, model):
    gpus(("Vulkan0", 1 << 30))
    request = {"file": model.file, "spec": model.spec, "context": 64, "n_threads": 1}
    none = Placement(n_layers=model.spec.n_layers, head=True)
    sizes = {
        cache: LlamaCppLoader()
        .footprint(
            LoadRequest(
                **request,
                gpu_use=place_on_gpu(GPUOption.of(none), footprint, SHAPE, wishes=ContextWishes(cache=cache)),
            )
        )
        .cache_bytes
        for cache in ("f16", "int8", "int4")
    }
    assert sizes["int8"] == sizes["f16"] * 34 // 64
    assert sizes["int4"] == sizes["f16"] * 18 // 64
