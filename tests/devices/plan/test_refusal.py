"""The error for a model that does not fit."""

from sprat.devices.plan.footprint import Footprint, PassCost
from sprat.devices.plan.refusal import refusal
from sprat.errors import DoesNotFitError


def footprint(**changes):
    parts = {
        "quant": "int4",
        "resident_bytes": 10**9,
        "routed_bytes": 10**9,
        "cache_bytes_per_token": 10**5,
        "context": 4096,
        "buffer_bytes": 10**8,
    }
    return Footprint(**(parts | changes))


def test_a_model_that_fits_is_not_refused():
    assert refusal(footprint(), footprint().total_bytes, "x.gguf") is None


def test_the_message_has_sizes_and_a_context_that_fits():
    error = refusal(footprint(), footprint().total_bytes - 1, "x.gguf")
    assert isinstance(error, DoesNotFitError)
    assert str(error) == (
        "x.gguf needs 2.3 GiB (weights 1.9 GiB, KV cache for 4,096 tokens 390.6 MiB, buffers "
        "95.4 MiB), 1 B more than the 2,509,599,999 bytes that it may use; use a context of at most 3,840 tokens, or "
        "allow more memory"
    )


def test_fewer_bits_are_the_remedy_where_no_context_is_short_enough():
    message = str(refusal(footprint(), 10**9, "x.gguf"))
    assert (
        "no context is short enough: allow at least 2.0 GiB, for a context of 256 tokens, or use fewer bits" in message
    )


def test_fewer_bits_are_no_remedy_where_weights_are_not_what_is_too_large():
    message = str(refusal(footprint(), 10**8, "x.gguf"))
    assert message.endswith("or use a smaller model")


def test_experts_that_are_streamed_need_not_fit():
    sizes = dict.fromkeys(("dense_bytes", "dense_weights", "dense_rows", "head_bytes", "head_weights", "head_rows"), 0)
    cost = PassCost(
        **sizes,
        n_layers=0,
        attention=(),
        attention_values=0,
        cache_bytes_per_token=0,
        n_calls=0,
        expert_bytes=10**6,
        n_experts_per_token=6,
    )
    streamable = footprint(pass_cost=cost)
    assert streamable.least_bytes == streamable.total_bytes - 10**9 + 6 * 10**6
    assert refusal(streamable, streamable.least_bytes, "x.gguf", streams=True) is None
    error = refusal(streamable, streamable.least_bytes - 1, "x.gguf", streams=True)
    assert "1.4 GiB with experts streamed, 1 B more than the 1,515,599,999 bytes that it may use" in str(error)
