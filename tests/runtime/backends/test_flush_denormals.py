"""Subnormal numbers are flushed to zero in the context, and only there."""

import platform
import threading

import numpy as np
import pytest

from sprat.runtime.backends.flush_denormals import subnormals_as_zero

SUBNORMAL, ONE = np.array([1e-40], np.float32), np.array([1.0], np.float32)


def computes_subnormals():
    """Whether this thread computes with subnormal numbers."""
    return bool((SUBNORMAL * ONE)[0])


@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="no effect on other CPUs")
def test_a_product_with_a_subnormal_number_is_zero_in_the_context():
    with subnormals_as_zero():
        assert not computes_subnormals()
        with subnormals_as_zero():
            pass
        assert not computes_subnormals()
    assert computes_subnormals()


def test_the_mode_is_restored_after_an_error():
    with pytest.raises(KeyError), subnormals_as_zero():
        raise KeyError
    assert computes_subnormals()


def test_the_mode_of_another_thread_is_unchanged():
    inside, seen = threading.Event(), threading.Event()

    def hold():
        with subnormals_as_zero():
            inside.set()
            seen.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(60)
    assert computes_subnormals()
    seen.set()
    holder.join()
