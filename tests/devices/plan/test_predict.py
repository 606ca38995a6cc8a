"""The roofline, on values small enough to check by hand."""

import dataclasses

import msgspec
import pytest

from sprat.devices.plan.counted import load_counted, parse_counted
from sprat.devices.plan.efficiency import load_efficiency
from sprat.devices.plan.footprint import AttentionCost, FormatShare, PassCost
from sprat.devices.plan.predict import Limit, Predictor, Rates, device_rates
from sprat.devices.profile import Basis, load_profile
from sprat.errors import DeviceError

RATES = Rates(
    read_bytes=1e9,
    cache_bytes=0,
    n_lanes=1,
    gemm_ops=1e12,
    gemv_ops=1e12,
    attention_ops=1e12,
    call_s=1e-5,
    storage_bytes=1e8,
    random_bytes=5e7,
    basis=Basis.MEASURED,
    relative_error=0.2,
)
DENSE = PassCost(
    dense_bytes=10**8,
    dense_weights=2 * 10**8,
    dense_rows=0,
    head_bytes=0,
    head_weights=0,
    head_rows=0,
    n_layers=1,
    attention=(AttentionCost(name="grouped", per_token=0, per_entry=0, per_pair=1000, queries_per_entry=4),),
    attention_values=0,
    cache_bytes_per_token=1000,
    n_calls=100,
)
SPARSE = dataclasses.replace(
    DENSE, expert_bytes=10**6, expert_weights=2 * 10**6, n_moe_layers=10, n_experts=64, n_experts_per_token=6
)


def full_efficiency():
    """Factors of an engine that reaches every rate."""
    efficiency = load_efficiency()
    ones = msgspec.structs.replace(
        efficiency.decode,
        **dict.fromkeys(
            ("memory", "compute", "row", "experts", "grouped", "latent", "queries", "storage", "calls"), 1.0
        ),
    )
    return msgspec.structs.replace(efficiency, decode=ones, prefill=ones)


def predictor(cost, resident_share=1.0, **changes):
    return Predictor(cost, dataclasses.replace(RATES, **changes), full_efficiency(), resident_share)


def test_decode_takes_the_time_to_read_the_weights_plus_the_calls():
    time = predictor(DENSE).decode(0)
    assert time.memory_s == pytest.approx(0.1)  # 10^8 bytes at 10^9 per second
    assert time.calls_s == pytest.approx(1e-3)  # 100 calls of 10 microseconds
    assert time.limit is Limit.MEMORY


def test_decode_on_a_slow_cpu_is_limited_by_compute():
    time = predictor(DENSE, gemv_ops=1e9).decode(0)
    assert time.compute_s == pytest.approx(0.4, rel=1e-3)  # two operations for each of 2 * 10^8 weights
    assert time.limit is Limit.COMPUTE


def test_a_format_of_many_instructions_slows_one_token_and_no_prompt():
    shares = (FormatShare("Q4_0", 0.5, 0.5), FormatShare("Q3_K", 0.5, 0.5))
    mixed = dataclasses.replace(DENSE, dense_formats=shares)
    slow = {"rates": dataclasses.replace(RATES, gemv_ops=8e9), "efficiency": full_efficiency()}
    plain = Predictor(mixed, **slow)
    counted = Predictor(mixed, **slow, cycles={"Q4_0": 1.0, "Q3_K": 3.0})
    dense = counted.decode_parts(0).dense
    assert dense.memory_s == pytest.approx(plain.decode_parts(0).dense.memory_s / 2)  # Q4_0's half is read
    assert dense.compute_s > 0 == plain.decode_parts(0).dense.compute_s
    assert counted.prefill(512) == plain.prefill(512)


def test_rows_have_a_cost_beside_their_weights():
    efficiency = full_efficiency()
    costly = msgspec.structs.replace(efficiency.decode, row=1000.0)
    tall = dataclasses.replace(DENSE, dense_rows=10**6, head_rows=10**6)
    time = Predictor(tall, RATES, msgspec.structs.replace(efficiency, decode=costly)).decode(0)
    assert time.compute_s == pytest.approx(2e6 * 1000 / 1e12)


def test_weights_in_the_cpu_cache_take_no_time_and_the_share_falls_beyond_its_size():
    assert predictor(DENSE, cache_bytes=10**8).decode(0).memory_s == 0
    assert predictor(DENSE, cache_bytes=10**8 // 2).decode(0).memory_s == pytest.approx(0.05)
    assert predictor(DENSE, cache_bytes=10**8 // 3).decode(0).memory_s == pytest.approx(0.1)


def test_a_deeper_context_reads_more_kv_entries_and_computes_with_them():
    time = predictor(DENSE).decode(10**6)
    assert time.memory_s == pytest.approx(0.1 + 1.0)
    assert time.compute_s == pytest.approx((10**6 + 1) * 1000 / 1e12)


def test_the_output_head_runs_for_one_token_per_pass():
    headed = dataclasses.replace(DENSE, head_bytes=10**8, head_weights=2 * 10**8)
    for passed in ("decode", "prefill"):
        with_head, without = (getattr(predictor(cost), passed)(512) for cost in (headed, DENSE))
        assert with_head.memory_s - without.memory_s == pytest.approx(0.1)


def test_writing_queries_out_contiguously_has_a_cost():
    laid = dataclasses.replace(DENSE, attention_values=10**6)
    assert predictor(laid).prefill(512).compute_s - predictor(DENSE).prefill(512).compute_s == pytest.approx(512e-6)


def test_a_partly_filled_register_costs_a_full_one():
    form = DENSE.attention[0]
    assert form.ops(1, 99, 16) == 4 * form.ops(1, 99)
    assert form.ops(512, 99, 16) == form.ops(512, 99)


def test_few_queries_at_decode_are_vectorized_along_head_dim():
    form = dataclasses.replace(DENSE.attention[0], lanes_per_query=4)  # with four queries
    assert form.ops(1, 99, 16) == form.ops(1, 99)
    assert form.ops(1, 99, 8) == 2 * form.ops(1, 99)
    assert form.ops(3, 99, 16) > form.ops(3, 99)


def test_a_prompt_is_computed_in_batches_that_attend_to_the_earlier_ones():
    fast_memory = predictor(DENSE, read_bytes=1e13)
    one, two = fast_memory.prefill(512), fast_memory.prefill(1024)
    attention = 1000 * 512 * (513 / 2 + 64) / 1e12  # and masked scores of the block
    assert one.compute_s == pytest.approx(2 * 2e8 * 512 / 1e12 + attention)
    assert two.compute_s == pytest.approx(2 * one.compute_s + 1000 * 512 * 512 / 1e12)
    assert one.limit is Limit.COMPUTE


def test_decode_reads_only_the_routed_experts_and_a_long_batch_nearly_all():
    assert SPARSE.experts_read(1) == pytest.approx(60)
    assert SPARSE.experts_read(512) == pytest.approx(640, rel=1e-6)
    assert predictor(SPARSE).decode(0).memory_s == pytest.approx(0.1 + 60 * 1e6 / 1e9)


def test_experts_that_are_not_resident_are_read_from_storage():
    half = predictor(SPARSE, resident_share=0.5).decode(0)
    assert half.storage_s == pytest.approx(30 * 1e6 / 5e7)
    assert half.limit is Limit.STORAGE
    assert predictor(SPARSE, resident_share=0.5).prefill(512).storage_s == pytest.approx(320 * 1e6 / 5e7, rel=1e-3)


def test_lru_finds_nothing_when_fewer_experts_are_resident_than_one_token_uses():
    assert predictor(SPARSE, resident_share=0.05).decode(0).storage_s == pytest.approx(60 * 1e6 / 5e7)


def test_attention_takes_the_cheaper_of_expanded_and_absorbed():
    expanded = AttentionCost(name="expanded", per_token=0, per_entry=1000, per_pair=10, queries_per_entry=1)
    absorbed = AttentionCost(name="absorbed", per_token=1000, per_entry=0, per_pair=34, queries_per_entry=16)
    cost = dataclasses.replace(DENSE, attention=(expanded, absorbed))
    assert cost.attention_ops(1, 4095) == 1000 + 4096 * 34  # one query: absorbed costs less
    assert cost.attention_ops(512, 0) == 512 * 1000 + 512 * (513 / 2 + 64) * 10
    assert cost.is_mla
    assert not DENSE.is_mla


def test_a_measured_rate_is_used_and_others_are_shares_of_the_peaks():
    efficiency = load_efficiency()
    board = load_profile("n100-mini-16gb")
    rates = device_rates(board, efficiency, board.storage[0])
    peak = sum(cores.int8_gops for cores in board.fast_cores) * 1e9
    assert rates.gemm_ops == pytest.approx(peak * efficiency.peaks.int8_share.value)
    assert rates.relative_error == efficiency.errors.of(rates.basis)
    assert device_rates(load_profile("laptop-8gb"), efficiency, board.storage[0]).basis is Basis.ASSUMED


def test_a_board_whose_kernels_were_counted_takes_those_cycles():
    efficiency, cycles = load_efficiency(), load_counted().cores["Cortex-A76"]
    board = load_profile("rpi5-8gb")
    rates = device_rates(board, efficiency, board.storage[1])
    assert rates.gemm_ops * efficiency.prefill.compute == pytest.approx(2 * 4 * 2.4e9 / cycles.many_tokens)
    assert rates.gemv_ops * efficiency.decode.compute == pytest.approx(2 * 4 * 2.4e9 / cycles.one_token)
    assert rates.read_bytes == 11.4e9
    assert rates.storage_bytes == 450e6
    assert rates.n_lanes == 4
    assert rates.basis is Basis.PUBLISHED
    assert rates.relative_error == cycles.error.value < efficiency.errors.published.value


def test_a_counted_board_with_assumed_memory_keeps_the_error_of_an_assumption():
    efficiency, board = load_efficiency(), load_profile("rpi-zero-2w")
    assert load_counted().has(board.fast_cores)
    assert device_rates(board, efficiency, board.storage[0]).relative_error == efficiency.errors.assumed.value


def test_a_wrong_count_is_named_with_the_command_that_writes_it():
    with pytest.raises(DeviceError, match=r"counted\.toml: .*one_token.*benchmarks/arm\.py --save"):
        parse_counted(b'source = "x"\n[cores.x]\nmany_tokens = 1.0\n')
    without_q4_0 = (
        b'many_tokens = 1.0\none_token_of = {Q8_0 = 1.0}\nerror = {value = 1, basis = "assumed", source = "x"}'
    )
    with pytest.raises(DeviceError, match=r"one_token_of has no Q4_0.*benchmarks/arm\.py --save"):
        parse_counted(b'source = "x"\n[cores.x]\n' + without_q4_0)


def test_threads_run_on_big_cores_only():
    phone = load_profile("pixel-8")
    assert [cores.kind for cores in phone.fast_cores] == ["Cortex-X3", "Cortex-A715"]
    assert (phone.n_threads, phone.n_cores) == (5, 9)
    assert load_profile("orange-pi-5-16gb").n_threads == 4
