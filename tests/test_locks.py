"""Locks in a forked child."""

import os
import threading

import pytest

from sprat import locks
from sprat.locks import ForkSafeLock


def test_a_lock_excludes_other_threads_and_is_reentrant():
    lock, order = ForkSafeLock(), []

    def wait():
        with lock:
            order.append("other")

    other = threading.Thread(target=wait)
    with lock, lock:
        other.start()
        other.join(0.05)
        order.append("first")
    other.join()
    assert order == ["first", "other"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of forks of processes with threads
def test_a_lock_that_another_thread_holds_is_free_in_a_child():
    lock, held, done = ForkSafeLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if not child:
        acquired = threading.Thread(target=lock.__enter__, daemon=True)
        acquired.start()
        acquired.join(10)
        os._exit(int(acquired.is_alive()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    done.set()
    holder.join()


def test_a_lock_of_a_thread_that_is_gone_is_free_after_a_fork():
    lock = ForkSafeLock()
    holder = threading.Thread(target=lock.__enter__)
    holder.start()
    holder.join()
    locks._renew_all()  # what a child does first
    with lock:  # would wait for ever
        pass
