import dataclasses

import msgspec
import pytest

from sprat.devices.plan.choose import best_plan, choose_quant
from sprat.devices.plan.footprint import AttentionForm, Footprint, Work
from sprat.devices.plan.plan import PLAN_SCHEMA, Plan, PlanSummary, Verdict
from sprat.devices.plan.text import headline, notes
from sprat.devices.profile import load_profile
from sprat.errors import DoesNotFitError
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.presets import shape_spec
from sprat.runtime.footprint import planned_footprint

PI5 = load_profile("rpi5-8gb")
ZERO = load_profile("rpi-zero-2w")
GB = 10**9
WORK = Work(
    dense_bytes=GB - GB // 20,
    dense_weights=2 * GB,
    dense_rows=10**6,
    head_bytes=GB // 20,
    head_weights=GB // 10,
    head_rows=10**5,
    attention=(AttentionForm(name="grouped", per_token=0, per_row=0, per_pair=100_000, queries_per_row=4),),
    attention_numbers=10**5,
    cache_bytes_per_token=31_104,
    n_calls=300,
    expert_bytes=5_000_000,
    expert_weights=10_000_000,
    expert_rows=5000,
    n_mixtures=25,
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
INT4 = dataclasses.replace(INT8, quant="int4", resident_bytes=1 * GB, routed_bytes=5 * GB, work=WORK)


def test_the_first_that_fits_is_taken():
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


def test_experts_that_do_not_fit_are_streamed_as_far_as_memory_goes():
    plan = best_plan([INT4], load_profile("rpi5-4gb"))
    assert plan.verdict is Verdict.STREAMED
    assert plan.held_experts_bytes == plan.usable_bytes - (INT4.total_bytes - INT4.routed_bytes)
    assert plan.held_experts_share == pytest.approx(plan.held_experts_bytes / (5 * GB))
    assert plan.missing_bytes == 0
    assert "fits with experts streamed on rpi5-4gb" in headline(plan)
    parts = plan.memory_map()
    assert sum(part.size_bytes for part in parts) == 4 << 30
    assert "spare" not in {part.name for part in parts}


def test_streaming_costs_time_and_storage_is_named_as_the_limit():
    whole, streamed = (best_plan([INT4], load_profile(name)).prediction for name in ("rpi5-8gb", "rpi5-4gb"))
    assert whole is not None
    assert streamed is not None
    assert streamed.decode_tokens_per_s < whole.decode_tokens_per_s / 2
    assert streamed.decode_limit == "storage"
    assert whole.decode_limit != "storage"


def test_a_whole_model_is_preferred_to_a_better_one_that_streams():
    streams = dataclasses.replace(INT8, work=WORK)
    assert best_plan([streams, INT4], PI5).footprint is INT4


def test_a_refusal_says_by_how_many_bytes_and_which_context_would_fit():
    exact = PI5.usable_bytes - INT4.weight_bytes - INT4.buffer_bytes - 1000 * INT4.cache_bytes_per_token
    resident = INT4.weight_bytes + exact  # a model without experts, with room for a cache of 1000 tokens
    tight = dataclasses.replace(INT4, context=50_000, resident_bytes=resident, routed_bytes=0, work=None)
    with pytest.raises(DoesNotFitError) as caught:
        choose_quant([tight], PI5)
    missing = tight.total_bytes - PI5.usable_bytes
    assert f"int4 does not fit on rpi5-8gb: {missing:,} bytes too large at a context of 50,000 tokens" in str(
        caught.value
    )
    assert "a context of 1,000 tokens would fit" in str(caught.value)


def test_a_model_that_no_context_helps_is_told_apart():
    with pytest.raises(DoesNotFitError, match=r"int8 does not fit .* no context is short enough: use a smaller model"):
        choose_quant([INT8], PI5)


def test_force_takes_the_smallest_and_still_says_that_it_does_not_fit():
    plan = choose_quant([INT8, INT4], ZERO, force=True)
    assert plan.footprint is INT4
    assert not plan.runs
    assert "does not fit on rpi-zero-2w" in headline(plan)
    assert plan.prediction is None
    assert "with --force the system reads weights from microSD again and again" in " ".join(notes(plan))


def test_a_model_larger_than_every_storage_is_refused_by_the_bytes_that_it_lacks():
    huge = dataclasses.replace(INT4, routed_bytes=400 * GB)
    plan = best_plan([huge], PI5)
    assert plan.storage is None
    assert plan.missing_bytes == 401 * GB - 256 * GB  # of weights; the largest medium of the profile
    with pytest.raises(DoesNotFitError, match="no storage of it holds the weights"):
        choose_quant([huge], PI5)


def test_storage_is_the_fastest_with_room():
    assert Plan(PI5, INT4, PI5.usable_bytes).storage.kind == "NVMe"
    card_only = msgspec.structs.replace(PI5, storage=PI5.storage[:1])
    assert Plan(card_only, INT4, PI5.usable_bytes).storage.kind == "microSD"


def test_a_budget_replaces_what_the_system_leaves():
    assert best_plan([INT4], PI5, usable_bytes=7 * GB).verdict is Verdict.FITS
    assert best_plan([INT4], PI5, usable_bytes=5 * GB).verdict is Verdict.STREAMED
    assert best_plan([INT4], PI5, usable_bytes=GB).missing_bytes == INT4.least_bytes - GB


def test_a_summary_holds_plain_numbers_and_survives_json():
    summary = best_plan([INT4], PI5).summary("a-model")
    decoded = msgspec.json.decode(msgspec.json.encode(summary), type=PlanSummary)
    assert decoded == summary
    assert (decoded.schema, decoded.graphics) == (PLAN_SCHEMA, None)
    assert decoded.settings.n_threads == 4
    assert decoded.needed_bytes == INT4.total_bytes


def test_a_prompt_is_passed_in_batches_that_end_before_patience_does():
    fast, slow = (best_plan([INT4], load_profile(name)).settings for name in ("home-20gb-12gpu", "rpi4-8gb"))
    assert fast.batch > slow.batch >= 32


def test_a_mixture_s_prompt_is_not_cut_so_short_that_it_takes_much_longer():
    footprint = planned_footprint(shape_spec("deepseek-v2-lite"), Recipe.named("int4"))
    plan = best_plan([footprint], load_profile("rpi5-16gb"))
    passes = {batch: plan.predictor.prefill(512, batch=batch).total_s for batch in (512, plan.settings.batch, 32)}
    assert passes[32] > 1.5 * passes[512]  # every pass reads nearly all experts
    assert plan.prediction.ttft_s == passes[plan.settings.batch] <= 1.4 * passes[512]


@pytest.mark.parametrize(("model", "tokens_per_s"), [("r1-distill-llama-8b", 2.17), ("r1-distill-qwen-14b", 1.20)])
def test_a_raspberry_pi_5_is_predicted_as_others_measured_it(model, tokens_per_s):
    """Llama 8B and R1-distill 14B in 4 bits with Ollama on a Pi 5 16 GB: J. Geerling, ai-benchmarks."""
    spec = shape_spec(model)
    footprint = planned_footprint(spec, Recipe.named("int4", tied_embeddings=spec.tied_embeddings))
    found = best_plan([footprint], load_profile("rpi5-16gb")).prediction
    assert found is not None
    assert found.decode_tokens_per_s == pytest.approx(tokens_per_s, rel=found.relative_error)


def test_notes_say_what_heat_takes():
    small = dataclasses.replace(INT4, resident_bytes=GB, routed_bytes=0)
    assert "heat leaves about 55 % of the speed" in " ".join(notes(best_plan([small], load_profile("pixel-8"))))


def test_a_graphics_card_that_holds_everything_has_an_upper_limit_and_no_prediction():
    dense = dataclasses.replace(WORK, dense_bytes=2 * GB - WORK.head_bytes, n_mixtures=0, n_experts=0)
    plan = best_plan(
        [dataclasses.replace(INT4, resident_bytes=2 * GB, routed_bytes=0, work=dense)],
        load_profile("home-4c-8gb-4gpu"),
    )
    assert plan.graphics.spare_bytes == (4 << 30) - plan.footprint.total_bytes
    assert plan.graphics.most_tokens_per_s == pytest.approx(128 / 2)  # GB/s over GB
    assert plan.graphics.most_tokens_per_s > plan.prediction.decode_tokens_per_s
    assert "GTX 1650 would hold all of it with " in notes(plan)[0]
    assert "at most 64 tokens/s (assumed: its peak, and a token reads weights alone)" in notes(plan)[0]


def test_a_graphics_card_that_is_too_small_says_by_how_much():
    plan = best_plan([INT4], load_profile("home-4c-8gb-4gpu"))
    assert plan.graphics.most_tokens_per_s is None
    assert f"GTX 1650 lacks {INT4.total_bytes - (4 << 30):,} bytes to hold all of it in int4" in notes(plan)[0]
