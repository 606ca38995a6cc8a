"""Readahead prefetches the selected experts, and does not change logits."""

import os

import numpy as np
import pytest

from sprat.runtime.arch.gguf_keys import spec_from_metadata
from sprat.runtime.backends.expert_readahead import ExpertReadahead
from sprat.runtime.backends.native import NativeBackend
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.kernels.native import NativeKernels, native_missing_because


@pytest.fixture(scope="module")
def file(v2_lite_gguf):
    return GGUFFile.open(v2_lite_gguf)


def test_whole_experts_of_all_three_matrices_are_prefetched(file, monkeypatch):
    prefetched = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _fd, start, length, _advice: prefetched.append((start, length)))
    readahead = ExpertReadahead(file)
    readahead(1, np.array([[3, 0], [3, 1]], np.int32))
    readahead.close()
    up = file.tensors["blk.1.ffn_up_exps.weight"]
    expert = up.nbytes // 64
    assert len(prefetched) == 9
    assert {(up.offset + index * expert, expert) for index in (0, 1, 3)} <= set(prefetched)


def test_experts_of_a_long_prompt_are_not_prefetched(file, monkeypatch):
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: pytest.fail("experts were prefetched"))
    ExpertReadahead(file)(1, np.zeros((17, 6), np.int32))


@pytest.mark.skipif(bool(native_missing_because()), reason="no native kernels")
def test_logits_are_the_same_and_other_observers_get_the_routing(file):
    spec = spec_from_metadata(file.metadata, file)
    plain, ahead = (NativeBackend(spec, file, NativeKernels(1), reading) for reading in (None, ExpertReadahead(file)))
    seen = []
    expected = plain.new_stream(8).forward([1, 2, 3])
    found = ahead.new_stream(8, lambda layer, experts: seen.append((layer, experts.shape))).forward([1, 2, 3])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert seen == [(1, (3, 6))]
    ahead.close()
