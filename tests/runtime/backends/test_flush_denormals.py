"""Subnormal numbers as zero: inside, and nowhere else."""

import platform
import threading

import numpy as np
import pytest

from sprat.runtime.backends.flush_denormals import subnormals_as_zero

SUBNORMAL, ONE = np.array([1e-40], np.float32), np.array([1.0], np.float32)


def kept():
    """Whether this thread computes with subnormal numbers."""
    return bool((SUBNORMAL * ONE)[0])


@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="another processor keeps its mode")
def test_a_product_with_a_subnormal_number_is_zero_inside():
    with subnormals_as_zero():
        assert not kept()
        with subnormals_as_zero():
            pass
        assert not kept()
    assert kept()


def test_the_mode_is_that_of_before_after_an_error():
    with pytest.raises(KeyError), subnormals_as_zero():
        raise KeyError
    assert kept()


def test_another_thread_keeps_its_own():
    inside, seen = threading.Event(), threading.Event()

    def hold():
        with subnormals_as_zero():
            inside.set()
            seen.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(60)
    assert kept()
    seen.set()
    holder.join()
