"""Placements on the GPUs of device profiles, from the dimensions of published models."""

import dataclasses

import pytest

from sprat.devices.parts import Basis, Sourced
from sprat.devices.plan.choose import best_plan
from sprat.devices.plan.gpu import placement_problem
from sprat.devices.plan.placement import Placement, best_placement, price
from sprat.devices.plan.plan import Verdict
from sprat.devices.plan.text import notes
from sprat.devices.profile import load_profile, load_profiles
from sprat.runtime.arch.presets import preset_spec
from sprat.runtime.memory.footprint import planned_footprint, planned_recipes


def plan_of(model, device, quant="int4"):
    spec = preset_spec(model)
    (recipe,) = planned_recipes(spec, quant)
    return best_plan([planned_footprint(spec, recipe)], load_profile(device))


def test_off_is_the_prediction_of_the_cpu():
    plan = plan_of("deepseek-v2-lite", "home-8c-16gb-8gpu")
    assert 1 / plan.gpu().off.token_s == pytest.approx(plan.prediction.decode_tokens_per_s)


def test_a_mixture_keeps_some_experts_in_memory_and_everything_else_on_the_card():
    found = plan_of("deepseek-v2-lite", "home-8c-16gb-8gpu").gpu()
    placement = found.best.placement
    assert (placement.layers, placement.head) == (27, True)
    assert 0 < len(placement.experts_in_memory) < 26
    assert 0 not in placement.experts_in_memory  # the first layer is dense
    assert not found.whole.fits
    assert found.off.token_s > found.best.token_s > found.whole.token_s


def test_a_dense_model_is_split_by_layers():
    found = plan_of("r1-distill-qwen-7b", "home-4c-8gb-4gpu").gpu()
    assert 0 < found.best.placement.layers < 28
    assert found.best.placement.experts_in_memory == ()


def test_card_and_memory_together_hold_what_neither_holds_alone():
    plan = plan_of("qwen3-30b-a3b", "home-8c-16gb-8gpu")
    found = plan.gpu()
    assert plan.verdict is Verdict.STREAMED
    assert found.off is None
    assert not found.whole.fits
    assert found.best.fits
    assert found.best.memory_bytes < plan.usable_bytes
    assert found.best.card_bytes <= found.card_bytes


def test_less_memory_of_the_card_holds_fewer_experts():
    plan = plan_of("deepseek-v2-lite", "home-8c-16gb-8gpu")
    less, more = plan.gpu(card_bytes=2 << 30), plan.gpu(card_bytes=6 << 30)
    assert less.card_bytes == 2 << 30
    assert len(less.best.placement.experts_in_memory) > len(more.best.placement.experts_in_memory)
    assert less.best.token_s > more.best.token_s


def test_shared_memory_holds_no_more_than_the_device():
    found = plan_of("deepseek-v2-lite", "jetson-orin-nano-8gb").gpu()
    assert (found.card_bytes, found.off, found.best) == (0, None, None)


def test_a_slow_bus_and_slow_launches_cost_time():
    plan = plan_of("deepseek-v2-lite", "home-8c-16gb-8gpu")
    card = plan.profile.accelerator

    def token_s(**values):
        sourced = {name: Sourced(value=value, basis=Basis.ASSUMED, source="test") for name, value in values.items()}
        changed = type(card)(**{name: getattr(card, name) for name in card.__struct_fields__} | sourced)
        parts = plan.predictor.decode_parts(0)
        return price(placement_problem(changed, plan.footprint, parts, plan.usable_bytes), placement).token_s

    placement = plan.gpu().best.placement
    assert token_s(bus_gbps=0.1) > token_s() > token_s(bus_gbps=64)
    assert token_s(layer_us=500) > token_s()


def test_depth_costs_time_on_the_card_too():
    plan = plan_of("qwen3-4b", "home-8c-16gb-8gpu")
    assert plan.gpu(past=4096).whole.token_s > plan.gpu().whole.token_s


def test_a_tied_head_on_the_card_frees_no_memory():
    tied = plan_of("smollm2-135m", "home-8c-16gb-8gpu")
    cost = tied.footprint.pass_cost
    assert tied.footprint.resident_bytes == cost.dense_bytes + cost.head_bytes
    problem = placement_problem(
        tied.profile.accelerator, tied.footprint, tied.predictor.decode_parts(0), tied.usable_bytes
    )
    assert problem.memory_bytes == tied.usable_bytes - tied.footprint.buffer_bytes - cost.head_bytes


def test_the_gpu_of_a_pi_5_is_kept_off_with_the_reason():
    plan = plan_of("qwen3-0.6b", "rpi5-8gb")
    assert plan.gpu().best.placement.is_off
    assert any(note.startswith("keep VideoCore VII off: llama.cpp's Vulkan") for note in notes(plan))


def test_a_model_of_unknown_layers_has_no_placement():
    plan = plan_of("qwen3-0.6b", "home-8c-16gb-8gpu")
    cost = dataclasses.replace(plan.footprint.pass_cost, layers=())
    unknown = dataclasses.replace(plan, footprint=dataclasses.replace(plan.footprint, pass_cost=cost))
    assert unknown.gpu() is None
    assert plan_of("qwen3-0.6b", "laptop-8gb").gpu() is None


@pytest.mark.parametrize(
    "profile", [each for each in load_profiles(pytest.fail) if each.accelerator], ids=lambda each: each.name
)
def test_the_fastest_placement_is_no_slower_than_none_or_all(profile):
    found = plan_of("r1-distill-qwen-1.5b", profile.name).gpu()
    others = [placed for placed in (found.off, found.whole) if placed and placed.fits]
    assert found.keep_off or all(found.best.token_s <= placed.token_s for placed in others)


HOMES = ("home-4c-8gb-4gpu", "home-8c-16gb-8gpu", "home-20gb-12gpu")
MODELS = ("deepseek-v2-lite", "qwen3-30b-a3b", "r1-distill-qwen-1.5b", "r1-distill-qwen-7b", "r1-distill-qwen-14b")


@pytest.mark.parametrize("device", HOMES)
@pytest.mark.parametrize("model", MODELS)
def test_no_placement_of_a_published_model_is_faster_on_a_home_computer(model, device):
    """The MoE layers of a model are alike, so every number of layers and of experts in memory are all placements."""
    plan = plan_of(model, device)
    problem = placement_problem(
        plan.profile.accelerator, plan.footprint, plan._predictor(1.0).decode_parts(0), plan.usable_bytes
    )
    n_layers = len(problem.layers)
    assert len({layer for layer in problem.layers if layer.experts}) <= 1
    placements = [Placement(n_layers=n_layers)]
    for count in range(n_layers + 1):
        moe = [index for index in range(n_layers - count, n_layers) if problem.layers[index].experts]
        placements += [
            Placement(n_layers=n_layers, layers=count, head=True, experts_in_memory=tuple(moe[:stay]))
            for stay in range(len(moe) + 1)
        ]
    fitting = [placed.token_s for each in placements if (placed := price(problem, each)).fits]
    best = best_placement(problem)
    assert (best is None) == (not fitting)
    if best is not None:
        assert best.token_s == pytest.approx(min(fitting))


@pytest.mark.parametrize("device", ["rpi5-8gb", "orange-pi-5-16gb", "pixel-8", "galaxy-s24"])
def test_a_gpu_without_evidence_of_a_gain_is_kept_off_and_the_plan_says_why(device):
    plan = plan_of("r1-distill-qwen-1.5b", device)
    assert plan.gpu().best.placement.is_off
    [why] = [note for note in notes(plan) if note.startswith("keep ")]
    assert "off: " in why
    assert "llama.cpp's Vulkan" in why
