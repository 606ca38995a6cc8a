"""Forward passes take turns: round robin, by priority, together where the backend can, and they end while they wait."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sprat.runtime.interrupt import Interrupt
from sprat.runtime.pass_queue import PassQueue, forward_in_turn, shares_turns

PASS_S = 0.01


class Stream:
    """A stream that writes down when its passes run."""

    def __init__(self, name, log):
        self.name, self.log, self.running = name, log, False

    def forward(self, tokens):
        assert not self.running
        self.log.append((self.name, len(tokens)))
        time.sleep(PASS_S)
        return np.array([float(tokens[-1])], np.float32)

    def forward_all(self, tokens):
        self.forward(tokens)
        return np.array(tokens, np.float32)[:, None]


class Alone:
    """A backend that runs one pass at a time."""


class Together:
    """A backend that runs tokens of several streams in one pass."""

    max_together = 3

    def __init__(self, log):
        self.log = log

    def forward_each(self, streams, tokens):
        self.log.append((tuple(sorted(stream.name for stream in streams)), 1))
        time.sleep(PASS_S)
        return np.array(tokens, np.float32)[:, None]


def run(queue, stream, passes, priority=0, ready=None):
    """Run ``passes`` (tokens of each) in turns; the last token of each must come back."""
    with queue.turns(priority):
        if ready is not None:
            ready.wait()
        for tokens in passes:
            assert forward_in_turn(stream, tokens)[0] == tokens[-1]


def together(*work):
    """Run functions in threads; errors are raised."""
    with ThreadPoolExecutor(len(work)) as threads:
        for future in [threads.submit(one) for one in work]:
            future.result()


def test_outside_of_turns_a_pass_runs_at_once():
    log = []
    assert forward_in_turn(Stream("a", log), [1, 2])[0] == 2
    assert log == [("a", 2)]


def test_two_answers_alternate():
    queue, log, ready = PassQueue(Alone()), [], threading.Barrier(2)
    together(
        lambda: run(queue, Stream("a", log), [[1, 2]] * 6, ready=ready),
        lambda: run(queue, Stream("b", log), [[3]] * 6, ready=ready),
    )
    names = [name for name, _ in log]
    assert sorted(names) == ["a"] * 6 + ["b"] * 6
    assert all(names[index] != names[index + 1] for index in range(1, 9))


def test_a_higher_priority_goes_first():
    queue, log, ready = PassQueue(Alone()), [], threading.Barrier(3)
    together(
        lambda: run(queue, Stream("low", log), [[1]] * 5, 0, ready),
        lambda: run(queue, Stream("high", log), [[2]] * 5, 1, ready),
        lambda: run(queue, Stream("low too", log), [[3]] * 5, 0, ready),
    )
    last_high = max(index for index, (name, _) in enumerate(log) if name == "high")
    assert last_high <= 6  # at most the two that had begun are before it


def test_tokens_of_several_answers_run_in_one_pass():
    log = []
    queue, ready = PassQueue(Together(log)), threading.Barrier(3)
    together(*(lambda n=n: run(queue, Stream(n, log), [[n]] * 8, ready=ready) for n in (1, 2, 3)))
    shared = [name for name, _ in log if isinstance(name, tuple)]
    assert shared.count((1, 2, 3)) >= 5
    assert len(log) <= 12  # of 24 passes one by one


def test_no_more_run_together_than_the_backend_says():
    log = []
    queue, ready = PassQueue(Together(log)), threading.Barrier(5)
    together(*(lambda n=n: run(queue, Stream(n, log), [[n]] * 4, ready=ready) for n in range(5)))
    assert max(len(name) for name, _ in log if isinstance(name, tuple)) == 3


def test_a_pass_of_several_tokens_runs_alone():
    log = []
    queue, ready = PassQueue(Together(log)), threading.Barrier(2)
    together(
        lambda: run(queue, Stream(1, log), [[1, 2], [3, 4]], ready=ready),
        lambda: run(queue, Stream(2, log), [[5, 6], [7, 8]], ready=ready),
    )
    assert sorted(log) == [(1, 2), (1, 2), (2, 2), (2, 2)]


def test_all_logits_are_those_of_the_stream_in_turns_or_not():
    log = []
    stream = Stream(1, log)
    assert forward_in_turn(stream, [1, 2], all_logits=True).tolist() == [[1], [2]]
    with PassQueue(Together(log)).turns():
        assert forward_in_turn(stream, [3], all_logits=True).tolist() == [[3]]
    assert log == [(1, 2), (1, 1)]


def test_an_error_of_a_shared_pass_reaches_each_answer():
    class Failing(Together):
        def forward_each(self, streams, tokens):
            raise RuntimeError("closed")

    log, ready = [], threading.Barrier(2)
    queue = PassQueue(Failing(log))
    errors = []

    def one(name):
        try:
            run(queue, Stream(name, log), [[1]] * 20, ready=ready)
        except RuntimeError as error:
            errors.append(str(error))

    together(lambda: one("a"), lambda: one("b"))
    assert errors == ["closed", "closed"]


def test_an_answer_that_is_cancelled_while_it_waits_ends_at_once():
    queue, log = PassQueue(Alone()), []
    began, done = threading.Event(), threading.Event()

    class Long(Stream):
        def forward(self, tokens):
            began.set()
            assert done.wait(60)
            return super().forward(tokens)

    interrupt = Interrupt()

    def waiting():
        assert began.wait(60)
        threading.Timer(0.02, interrupt.cancel).start()
        with queue.turns(), interrupt:
            forward_in_turn(Stream("waits", log), [1])
            pytest.fail("it was interrupted")  # not reached
        done.set()

    together(lambda: run(queue, Long("long", log), [[1]]), waiting)
    assert log == [("long", 1)]
    run(queue, Stream("next", log), [[2]])
    assert log[-1] == ("next", 1)


def test_turns_are_shared_while_another_answer_has_some():
    queue, began, done = PassQueue(Alone()), threading.Event(), threading.Event()

    def other():
        with queue.turns():
            began.set()
            done.wait()

    with ThreadPoolExecutor(1) as threads:
        assert not shares_turns()
        with queue.turns():
            assert not shares_turns()
            ended = threads.submit(other)
            began.wait()
            assert shares_turns()
            done.set()
            ended.result()
            assert not shares_turns()
