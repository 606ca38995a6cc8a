"""Interrupts: a pass ends in the middle, and leaves the cache as it was."""

import threading
import time

import numpy as np
import pytest
from native_kernels import needs_native
from tiny_checkpoint import write_checkpoint

from sprat.export.pipeline import export
from sprat.quant.formats import get_format
from sprat.runtime.engine import Engine
from sprat.runtime.generate.generation import PrefillSpeed
from sprat.runtime.generate.results import FinishReason
from sprat.runtime.interrupt import Interrupt, InterruptError, check_interrupt, current_interrupt
from sprat.runtime.weights import Weight

BACKENDS = [pytest.param("native", marks=needs_native), "reference"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A tiny MoE model with several layers, as GGUF and ONNX."""
    pytest.importorskip("onnx_ir")
    folder = tmp_path_factory.mktemp("interrupt")
    source = write_checkpoint(folder / "tiny-Chat")
    return export(source, folder / "out", quant="int8", formats=("gguf", "onnx")).path


def test_a_block_ends_without_an_error_and_applies_to_its_thread_only():
    interrupt, reached = Interrupt(), []
    interrupt.cancel()
    with interrupt:
        other = threading.Thread(target=lambda: reached.append(current_interrupt()))
        other.start()
        other.join()
        check_interrupt()
        reached.append("after")
    assert reached == [None]
    assert current_interrupt() is None
    check_interrupt()


def test_other_errors_pass_through_a_block():
    with pytest.raises(ValueError, match="mine"), Interrupt():
        raise ValueError("mine")


def test_a_nested_block_gives_the_outer_one_back():
    with Interrupt() as outer:
        with Interrupt() as inner:
            assert current_interrupt() is inner
        assert current_interrupt() is outer


def test_a_deadline_sets_it():
    assert Interrupt(time.monotonic()).is_set
    assert not Interrupt(time.monotonic() + 3600).is_set
    with Interrupt(time.monotonic()):
        check_interrupt()
        pytest.fail("the deadline is over")


def test_the_interrupt_of_an_outer_block_is_not_caught_by_an_inner_one():
    with pytest.raises(InterruptError), Interrupt():
        raise InterruptError


@pytest.mark.parametrize("how", ["before", "cancel", "deadline"])
def test_a_watch_is_told_of_a_cancel_and_of_the_deadline(how):
    stopped = threading.Event()
    interrupt = Interrupt(time.monotonic() + 0.05 if how == "deadline" else None)
    if how == "before":
        interrupt.cancel()
    with interrupt.watch(stopped.set):
        if how == "cancel":
            threading.Thread(target=interrupt.cancel).start()
        assert stopped.wait(30)


def test_a_watch_that_is_over_is_not_told():
    interrupt = Interrupt()
    with interrupt.watch(lambda: pytest.fail("told after the block")):
        pass
    interrupt.cancel()


@needs_native
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_native_kernel_ends_in_the_middle(n_threads, how):
    """70 GFLOP take more than 10 ms on any CPU; the kernels then work as before."""
    from sprat.runtime.kernels.native import NativeKernels

    kernels, size, ended = NativeKernels(n_threads), 4096, []
    rng = np.random.default_rng(0)
    values = rng.standard_normal((size, size), np.float32)
    weight = Weight("w", get_format("F32"), (size, size), get_format("F32").quantize(values))
    x = rng.standard_normal((2048, size), np.float32)
    interrupt = Interrupt(time.monotonic() + 0.01 if how == "deadline" else None)
    if how == "cancel":
        threading.Timer(0.01, interrupt.cancel).start()
    with interrupt:
        kernels.linear(x, weight)
        ended.append("at the end")
    assert interrupt.is_set
    assert ended == []
    found = kernels.linear(x[:3], weight)
    np.testing.assert_allclose(found, x[:3] @ values.T, rtol=1e-3, atol=1e-2)


@needs_native
def test_attention_over_a_long_context_ends_early():
    """20 GFLOP take more than 20 ms on any CPU; later calls are right."""
    from sprat.runtime.cache import KeysAndValues
    from sprat.runtime.kernels.native import NativeKernels

    kernels, n_entries, ended = NativeKernels(1), 200_000, []
    rng = np.random.default_rng(0)
    keys, values = (rng.standard_normal((1, n_entries, 128), np.float32) for _ in range(2))
    q = rng.standard_normal((192, 1, 128), np.float32)
    interrupt = Interrupt(time.monotonic() + 0.02)
    with interrupt:
        kernels.gqa_attention(q, KeysAndValues(keys, values), 0.1)
        ended.append("at the end")
    assert interrupt.is_set
    assert ended == []
    found = kernels.gqa_attention(q[:1], KeysAndValues(keys[:, :1], values[:, :1]), 0.1)
    np.testing.assert_allclose(found[0], values[:, 0], rtol=1e-5)  # one entry: its weight is 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layer", [1, 3])
def test_a_pass_that_is_cancelled_in_a_layer_leaves_the_cache_as_it_was(bundle, backend, layer):
    interrupt, tokens = Interrupt(), list(range(3, 40))

    def cancel(index, _experts):
        if index == layer:
            interrupt.cancel()

    with Engine.load(bundle, backend=backend, cache=None) as engine:
        stream = engine.backend.new_stream(64, cancel)
        with Interrupt():
            stream.forward(tokens[:5])
        assert stream.length == 5
        interrupt = Interrupt()
        with interrupt:
            stream.forward(tokens[5:])
            pytest.fail("the pass went on")
        assert stream.length == 5
        fresh = engine.backend.new_stream(64)
        fresh.forward(tokens[:5])
        np.testing.assert_array_equal(stream.forward(tokens[5:]), fresh.forward(tokens[5:]))


def test_onnxruntime_is_told_to_stop(bundle):
    pytest.importorskip("onnxruntime")
    interrupt, tokens = Interrupt(), list(range(3, 40))
    with Engine.load(bundle, backend="onnx") as engine:
        stream, fresh = engine.backend.new_stream(64), engine.backend.new_stream(64)
        stream.forward(tokens[:5])
        fresh.forward(tokens[:5])
        interrupt.cancel()
        with interrupt:
            stream.forward(tokens[5:])
            pytest.fail("the run went on")
        assert stream.length == 5
        np.testing.assert_array_equal(stream.forward(tokens[5:]), fresh.forward(tokens[5:]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_session_goes_on_after_a_cancel_inside_a_chunk(bundle, backend):
    """The chunks that were complete stay in the cache; the answer to the next prompt is a fresh session's."""
    with Engine.load(bundle, backend=backend, batch=8) as engine, engine.session() as session:
        prompt = list(range(3, 40))
        running = session.generate(prompt, on_prefill=lambda state: state.done == 16 and running.cancel())
        assert list(running) == []
        assert running.summary.finish_reason is FinishReason.CANCELLED
        assert session.tokens == tuple(prompt[:16])
        cancelled = session.generate(prompt, max_tokens=5, temperature=0)
        with engine.session() as fresh:
            expected = [piece.token_id for piece in fresh.generate(prompt, max_tokens=5, temperature=0)]
        assert [piece.token_id for piece in cancelled] == expected
        assert cancelled.summary.timings.cache_n == 16


def test_a_chunk_shrinks_to_what_is_left_of_the_deadline():
    speed = PrefillSpeed()
    assert speed.tokens_within(0.1, 256) == 256  # nothing is known yet
    speed.update(256, 1.0)
    assert [speed.tokens_within(seconds, 256) for seconds in (2.0, 0.5, 0.001)] == [256, 128, 16]
    speed.update(2, 1.0)  # too short to tell
    assert speed.tokens_per_s == 256
    assert speed.tokens_within(0.001, 8) == 8
