"""A mask that takes long is computed by another thread during the pass; the answer is the same."""

import os
import threading
import time

import numpy as np
import pytest

from sprat.errors import InputError
from sprat.runtime.generate.mask_ahead import MaskAhead


class SlowGuide:
    """Allows the number of tokens that were accepted, and notes which thread asked."""

    is_complete = False

    def __init__(self, seconds=0.002, fails_after=99):
        self.threads, self.n_accepted, self._seconds, self._fails_after = [], 0, seconds, fails_after

    def allowed(self):
        self.threads.append(threading.current_thread())
        time.sleep(self._seconds)
        if self.n_accepted >= self._fails_after:
            raise InputError("the grammar has no continuation")
        return np.arange(8) == self.n_accepted

    def accept(self, token_id):
        self.n_accepted += 1
        return token_id

    def forced(self):
        return [self.n_accepted]


def masks(guide, n=4):
    found = []
    for _ in range(n):
        found.append(guide.allowed().tolist())
        guide.accept(0)
        with guide.ahead():
            assert len(guide.forced()) == 1
    return found


def test_masks_are_those_of_the_guide():
    slow = SlowGuide()
    assert masks(MaskAhead(slow)) == [(np.arange(8) == n).tolist() for n in range(4)]
    assert slow.threads[0] is threading.current_thread()
    assert all(thread is not threading.current_thread() for thread in slow.threads[1:])


def test_a_mask_that_takes_no_time_stays_in_the_thread():
    quick = SlowGuide(seconds=0)
    quick.allowed()  # imports and the like
    guide = MaskAhead(quick)
    guide._seconds = 1e-5
    with guide.ahead():
        pass
    guide.allowed()
    assert quick.threads == [threading.current_thread()] * 2


def test_a_mask_that_was_computed_for_another_token_is_not_used():
    guide = MaskAhead(SlowGuide())
    guide.allowed()
    with guide.ahead():
        pass
    guide.accept(0)
    assert guide.allowed().tolist() == [False, True, *[False] * 6]


def test_an_error_is_raised_where_the_mask_is_wanted():
    guide = MaskAhead(SlowGuide(fails_after=1))
    guide.allowed()
    guide.accept(0)
    with guide.ahead():
        pass
    with pytest.raises(InputError, match="no continuation"):
        guide.allowed()


def test_a_forked_child_goes_on():
    guide = MaskAhead(SlowGuide())
    masks(guide, 2)
    child = os.fork()
    if child == 0:
        os._exit(0 if len(masks(guide, 2)) == 2 else 1)
    for _ in range(500):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.02)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert status == 0
