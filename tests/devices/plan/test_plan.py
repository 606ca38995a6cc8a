import dataclasses

import msgspec
import pytest

from sprat.devices.plan.choose import best_plan, choose_quant
from sprat.devices.plan.footprint import AttentionCost, Footprint, PassCost
from sprat.devices.plan.plan import PLAN_SCHEMA, Plan, PlanSummary, Verdict
from sprat.devices.plan.text import headline, notes
from sprat.devices.profile import load_profile
from sprat.errors import DoesNotFitError
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.presets import preset_spec
from sprat.runtime.memory.footprint import planned_footprint
from sprat.text import human_bytes

PI5 = load_profile("rpi5-8gb")
ZERO = load_profile("rpi-zero-2w")
GB = 10**9
COST = PassCost(
    dense_bytes=GB - GB // 20,
    dense_weights=2 * GB,
    dense_rows=10**6,
    head_bytes=GB // 20,
    head_weights=GB // 10,
    head_rows=10**5,
    n_layers=1,
    attention=(AttentionCost(name="grouped", per_token=0, per_entry=0, per_pair=100_000, queries_per_entry=4),),
    attention_values=10**5,
    cache_bytes_per_token=31_104,
    n_calls=300,
    expert_bytes=5_000_000,
    expert_weights=10_000_000,
    expert_rows=5000,
    n_moe_layers=25,
    n_experts=40,
    n_experts_per_token=4,
)
INT8 = Footprint(
    quant="int8",
    resident_bytes=3 * GB,
    routed_bytes=13 * GB,
    cache_bytes_per_token=31_104,
    context=4096,
    buffer_bytes=GB // 4,
)
INT4 = dataclasses.replace(INT8, quant="int4", resident_bytes=1 * GB, routed_bytes=5 * GB, pass_cost=COST)


def test_the_first_footprint_that_fits_is_chosen():
    plan = choose_quant([INT8, INT4], PI5)
    assert plan.footprint is INT4
    assert plan.fits
    assert plan.spare_bytes == PI5.usable_bytes - 6 * GB - 31_104 * 4096 - GB // 4
    small = dataclasses.replace(INT8, routed_bytes=0)
    assert choose_quant([small, INT4], PI5).footprint is small


def test_a_memory_map_accounts_for_every_byte_of_the_device():
    plan = choose_quant([INT4], PI5)
    sizes = {part.name: part.size_bytes for part in plan.memory_map()}
    assert list(sizes) == ["resident weights", "experts", "cache", "buffers", "reserve", "spare"]
    assert sum(sizes.values()) == PI5.memory.total_bytes.value


def test_memory_is_filled_with_experts_and_the_others_are_streamed():
    plan = best_plan([INT4], load_profile("rpi5-4gb"))
    assert plan.verdict is Verdict.STREAMED
    assert plan.held_experts_bytes == plan.usable_bytes - (INT4.total_bytes - INT4.routed_bytes)
    assert plan.held_experts_share == pytest.approx(plan.held_experts_bytes / (5 * GB))
    assert plan.missing_bytes == 0
    assert "fits with experts streamed on rpi5-4gb" in headline(plan)
    parts = plan.memory_map()
    assert sum(part.size_bytes for part in parts) == 4 << 30
    assert "spare" not in {part.name for part in parts}


def test_streaming_is_slower_and_limited_by_storage():
    whole, streamed = (best_plan([INT4], load_profile(name)).prediction for name in ("rpi5-8gb", "rpi5-4gb"))
    assert whole is not None
    assert streamed is not None
    assert streamed.decode_tokens_per_s < whole.decode_tokens_per_s / 2
    assert streamed.decode_limit == "storage"
    assert whole.decode_limit != "storage"


def test_a_model_that_fits_is_preferred_to_a_better_one_that_streams():
    streams = dataclasses.replace(INT8, pass_cost=COST)
    assert best_plan([streams, INT4], PI5).footprint is INT4


def test_the_error_names_the_lack_and_a_context_that_fits():
    exact = PI5.usable_bytes - INT4.weight_bytes - INT4.buffer_bytes - 1000 * INT4.cache_bytes_per_token
    resident = INT4.weight_bytes + exact  # no experts, and memory for a cache of 1000 tokens
    tight = dataclasses.replace(INT4, context=50_000, resident_bytes=resident, routed_bytes=0, pass_cost=None)
    with pytest.raises(DoesNotFitError) as caught:
        choose_quant([tight], PI5)
    message, missing = str(caught.value), tight.total_bytes - PI5.usable_bytes
    assert message.startswith(f"the model (int4) on rpi5-8gb needs {human_bytes(tight.total_bytes)} (weights ")
    assert f"{human_bytes(missing)} more than the 7.0 GiB that it may use" in message
    assert "use a context of at most 768 tokens" in message  # 1000, rounded down to a multiple of 256


def test_a_smaller_model_is_the_remedy_where_no_context_is_short_enough():
    with pytest.raises(
        DoesNotFitError,
        match=r"int8.* no context is short enough: allow at least 15\.1 GiB.* or use fewer bits .* or a smaller model",
    ):
        choose_quant([INT8], PI5)


def test_force_chooses_the_smallest_and_the_headline_says_that_it_does_not_fit():
    plan = choose_quant([INT8, INT4], ZERO, force=True)
    assert plan.footprint is INT4
    assert not plan.runs
    assert "does not fit on rpi-zero-2w" in headline(plan)
    assert plan.prediction is None
    assert "with --force every token reads weights from microSD again" in " ".join(notes(plan))


def test_a_model_larger_than_every_storage_device_is_refused():
    huge = dataclasses.replace(INT4, routed_bytes=400 * GB)
    plan = best_plan([huge], PI5)
    assert plan.storage is None
    assert plan.missing_bytes == 401 * GB - 256 * GB  # weights minus the largest storage device of the profile
    with pytest.raises(
        DoesNotFitError, match=r"its weights take 373\.5 GiB, .* more than any storage device of the profile holds"
    ):
        choose_quant([huge], PI5)


def test_storage_is_the_fastest_device_that_holds_the_weights():
    assert Plan(PI5, INT4, PI5.usable_bytes).storage.kind == "NVMe"
    card_only = msgspec.structs.replace(PI5, storage=PI5.storage[:1])
    assert Plan(card_only, INT4, PI5.usable_bytes).storage.kind == "microSD"


def test_a_memory_limit_replaces_the_usable_memory_of_the_profile():
    assert best_plan([INT4], PI5, usable_bytes=7 * GB).verdict is Verdict.FITS
    assert best_plan([INT4], PI5, usable_bytes=5 * GB).verdict is Verdict.STREAMED
    assert best_plan([INT4], PI5, usable_bytes=GB).missing_bytes == INT4.least_bytes - GB


def test_a_summary_is_the_same_after_json():
    summary = best_plan([INT4], load_profile("laptop-8gb")).summary("a-model")
    decoded = msgspec.json.decode(msgspec.json.encode(summary), type=PlanSummary)
    assert decoded == summary
    assert (decoded.schema, decoded.graphics) == (PLAN_SCHEMA, None)
    assert decoded.settings.n_threads == 4
    assert decoded.needed_bytes == INT4.total_bytes


def test_a_slower_device_gets_shorter_prefill_batches():
    fast, slow = (best_plan([INT4], load_profile(name)).settings for name in ("home-20gb-12gpu", "rpi4-8gb"))
    assert fast.batch > slow.batch >= 32


def test_prefill_batches_of_an_moe_are_not_so_short_that_the_prompt_takes_much_longer():
    footprint = planned_footprint(preset_spec("deepseek-v2-lite"), Recipe.named("int4"))
    plan = best_plan([footprint], load_profile("rpi5-16gb"))
    passes = {batch: plan.predictor.prefill(512, batch=batch).total_s for batch in (512, plan.settings.batch, 32)}
    assert passes[32] > 1.5 * passes[512]  # every pass reads nearly all experts
    assert plan.prediction.ttft_s == passes[plan.settings.batch] <= 1.4 * passes[512]


@pytest.mark.parametrize(("model", "tokens_per_s"), [("r1-distill-llama-8b", 2.17), ("r1-distill-qwen-14b", 1.20)])
def test_the_prediction_for_a_raspberry_pi_5_agrees_with_published_measurements(model, tokens_per_s):
    """Llama 8B and R1-distill 14B in 4 bits with Ollama on a Pi 5 16 GB: J. Geerling, ai-benchmarks."""
    spec = preset_spec(model)
    footprint = planned_footprint(spec, Recipe.named("int4", tied_embeddings=spec.tied_embeddings))
    found = best_plan([footprint], load_profile("rpi5-16gb")).prediction
    assert found is not None
    assert found.decode_tokens_per_s == pytest.approx(tokens_per_s, rel=found.relative_error)


def test_notes_name_the_speed_that_throttling_leaves():
    small = dataclasses.replace(INT4, resident_bytes=GB, routed_bytes=0)
    assert "throttling leaves about 55 % of the speed" in " ".join(notes(best_plan([small], load_profile("pixel-8"))))


def test_a_gpu_that_holds_the_model_gets_an_upper_limit_and_no_prediction():
    dense = dataclasses.replace(COST, dense_bytes=2 * GB - COST.head_bytes, n_moe_layers=0, n_experts=0)
    plan = best_plan(
        [dataclasses.replace(INT4, resident_bytes=2 * GB, routed_bytes=0, pass_cost=dense)],
        load_profile("home-4c-8gb-4gpu"),
    )
    assert plan.graphics.spare_bytes == (4 << 30) - plan.footprint.total_bytes
    assert plan.graphics.most_tokens_per_s == pytest.approx(128 / 2)  # GB/s over GB
    assert plan.graphics.most_tokens_per_s > plan.prediction.decode_tokens_per_s
    assert "GTX 1650 would hold the whole model with " in notes(plan)[0]
    assert "at most 64 tokens/s (assumed: peak bandwidth, and only weights are read)" in notes(plan)[0]


def test_a_gpu_that_is_too_small_gets_its_lack_of_memory():
    plan = best_plan([INT4], load_profile("home-4c-8gb-4gpu"))
    assert plan.graphics.most_tokens_per_s is None
    assert (
        f"GTX 1650 lacks {human_bytes(INT4.total_bytes - (4 << 30))} to hold the whole model in int4" in notes(plan)[0]
    )


def test_a_plan_says_whether_memory_or_storage_is_missing():
    assert best_plan([INT4], PI5).missing_from is None
    assert best_plan([INT4], PI5, usable_bytes=GB).missing_from == "memory"
    huge = best_plan([dataclasses.replace(INT4, routed_bytes=400 * GB)], PI5)
    assert huge.missing_from == "storage"
    assert "more storage needed" in headline(huge)
    summary = huge.summary("x")
    assert (summary.missing_from, summary.file_bytes) == ("storage", 401 * GB)
