"""The roofline, on numbers small enough to check by hand."""

import dataclasses

import msgspec
import pytest

from sprat.devices.plan.efficiency import load_calibration
from sprat.devices.plan.footprint import AttentionForm, Work
from sprat.devices.plan.predict import Limit, Predictor, Rates, device_rates
from sprat.devices.profile import Basis, load_profile

RATES = Rates(
    read_bytes=1e9,
    cache_bytes=0,
    n_lanes=1,
    many_tokens_ops=1e12,
    one_token_ops=1e12,
    attention_ops=1e12,
    call_s=1e-5,
    storage_bytes=1e8,
    random_bytes=5e7,
    basis=Basis.MEASURED,
)
DENSE = Work(
    dense_bytes=10**8,
    dense_weights=2 * 10**8,
    dense_rows=0,
    head_bytes=0,
    head_weights=0,
    head_rows=0,
    attention=(AttentionForm(name="grouped", per_token=0, per_row=0, per_pair=1000, queries_per_row=4),),
    attention_numbers=0,
    cache_bytes_per_token=1000,
    n_calls=100,
)
SPARSE = dataclasses.replace(
    DENSE, expert_bytes=10**6, expert_weights=2 * 10**6, n_mixtures=10, n_experts=64, n_experts_per_token=6
)


def reaching_everything():
    """A calibration whose engine reaches every rate."""
    calibration = load_calibration()
    ones = msgspec.structs.replace(
        calibration.decode,
        **dict.fromkeys(
            ("memory", "compute", "row", "experts", "grouped", "latent", "queries", "storage", "calls"), 1.0
        ),
    )
    return msgspec.structs.replace(calibration, decode=ones, prefill=ones)


def predictor(work, held=1.0, **changes):
    return Predictor(work, dataclasses.replace(RATES, **changes), reaching_everything(), held)


def test_a_token_waits_for_its_weights_and_for_the_calls():
    time = predictor(DENSE).decode(0)
    assert time.memory_s == pytest.approx(0.1)  # 10^8 bytes at 10^9 per second
    assert time.calls_s == pytest.approx(1e-3)  # 100 calls of 10 microseconds
    assert time.limit is Limit.MEMORY


def test_a_slow_processor_makes_the_same_token_wait_for_compute():
    time = predictor(DENSE, one_token_ops=1e9).decode(0)
    assert time.compute_s == pytest.approx(0.4, rel=1e-3)  # two operations for each of 2 * 10^8 weights
    assert time.limit is Limit.COMPUTE


def test_rows_cost_beside_their_weights():
    calibration = reaching_everything()
    dear = msgspec.structs.replace(calibration.decode, row=1000.0)
    tall = dataclasses.replace(DENSE, dense_rows=10**6, head_rows=10**6)
    time = Predictor(tall, RATES, msgspec.structs.replace(calibration, decode=dear)).decode(0)
    assert time.compute_s == pytest.approx(2e6 * 1000 / 1e12)


def test_what_a_cache_holds_is_not_waited_for_and_less_of_what_it_nearly_holds():
    assert predictor(DENSE, cache_bytes=10**8).decode(0).memory_s == 0
    assert predictor(DENSE, cache_bytes=10**8 // 2).decode(0).memory_s == pytest.approx(0.05)
    assert predictor(DENSE, cache_bytes=10**8 // 3).decode(0).memory_s == pytest.approx(0.1)


def test_a_longer_context_reads_more_rows_and_computes_with_them():
    time = predictor(DENSE).decode(10**6)
    assert time.memory_s == pytest.approx(0.1 + 1.0)
    assert time.compute_s == pytest.approx((10**6 + 1) * 1000 / 1e12)


def test_the_head_meets_one_token_however_long_the_pass():
    headed = dataclasses.replace(DENSE, head_bytes=10**8, head_weights=2 * 10**8)
    for passed in ("decode", "prefill"):
        with_head, without = (getattr(predictor(work), passed)(512) for work in (headed, DENSE))
        assert with_head.memory_s - without.memory_s == pytest.approx(0.1)


def test_queries_are_laid_out_one_after_the_other():
    laid = dataclasses.replace(DENSE, attention_numbers=10**6)
    assert predictor(laid).prefill(512).compute_s - predictor(DENSE).prefill(512).compute_s == pytest.approx(512e-6)


def test_fewer_queries_than_lanes_cost_as_much_as_those():
    form = DENSE.attention[0]
    assert form.ops(1, 99, 16) == 4 * form.ops(1, 99)
    assert form.ops(512, 99, 16) == form.ops(512, 99)


def test_few_queries_of_one_token_cost_what_they_are_where_rows_lie_along_the_lanes():
    form = dataclasses.replace(DENSE.attention[0], lanes_to_query=4)  # with four queries
    assert form.ops(1, 99, 16) == form.ops(1, 99)
    assert form.ops(1, 99, 8) == 2 * form.ops(1, 99)
    assert form.ops(3, 99, 16) > form.ops(3, 99)


def test_a_prompt_is_computed_in_batches_and_sees_what_came_before():
    fast_memory = predictor(DENSE, read_bytes=1e13)
    one, two = fast_memory.prefill(512), fast_memory.prefill(1024)
    attention = 1000 * 512 * (513 / 2 + 64) / 1e12  # and the rest of a block
    assert one.compute_s == pytest.approx(2 * 2e8 * 512 / 1e12 + attention)
    assert two.compute_s == pytest.approx(2 * one.compute_s + 1000 * 512 * 512 / 1e12)
    assert one.limit is Limit.COMPUTE


def test_only_chosen_experts_are_read_and_a_batch_chooses_nearly_all():
    assert SPARSE.experts_read(1) == pytest.approx(60)
    assert SPARSE.experts_read(512) == pytest.approx(640, rel=1e-6)
    assert predictor(SPARSE).decode(0).memory_s == pytest.approx(0.1 + 60 * 1e6 / 1e9)


def test_experts_that_are_not_held_come_from_storage():
    half = predictor(SPARSE, held=0.5).decode(0)
    assert half.storage_s == pytest.approx(30 * 1e6 / 5e7)
    assert half.limit is Limit.STORAGE
    assert predictor(SPARSE, held=0.5).prefill(512).storage_s == pytest.approx(320 * 1e6 / 5e7, rel=1e-3)


def test_a_store_smaller_than_one_token_s_choice_finds_nothing_again():
    assert predictor(SPARSE, held=0.05).decode(0).storage_s == pytest.approx(60 * 1e6 / 5e7)


def test_attention_takes_the_cheaper_of_two_forms():
    expanded = AttentionForm(name="expanded", per_token=0, per_row=1000, per_pair=10, queries_per_row=1)
    absorbed = AttentionForm(name="absorbed", per_token=1000, per_row=0, per_pair=34, queries_per_row=16)
    work = dataclasses.replace(DENSE, attention=(expanded, absorbed))
    assert work.attention_ops(1, 4095) == 1000 + 4096 * 34  # one query: absorbing it beats expanding 4096 rows
    assert work.attention_ops(512, 0) == 512 * 1000 + 512 * (513 / 2 + 64) * 10
    assert work.is_latent
    assert not DENSE.is_latent


def test_a_measured_profile_is_believed_and_another_gets_shares_of_its_peaks():
    calibration = load_calibration()
    board = load_profile("rpi5-8gb")
    rates = device_rates(board, calibration, board.storage[1])
    peak = 4 * 2.4e9 * 64  # cores, cycles, operations of two SDOT
    assert rates.many_tokens_ops == pytest.approx(peak * calibration.peaks.int8_share.value)
    assert rates.read_bytes == 11.4e9
    assert rates.storage_bytes == 450e6
    assert rates.n_lanes == 4
    assert rates.basis is Basis.PUBLISHED
    assert device_rates(load_profile("laptop-8gb"), calibration, board.storage[1]).basis is Basis.ASSUMED


def test_big_cores_count_and_little_ones_do_not():
    phone = load_profile("pixel-8")
    assert [cores.kind for cores in phone.fast_cores] == ["Cortex-X3", "Cortex-A715"]
    assert (phone.n_threads, phone.n_cores) == (5, 9)
    assert load_profile("orange-pi-5-16gb").n_threads == 4
