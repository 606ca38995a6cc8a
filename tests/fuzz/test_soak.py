"""A soak of a few seconds finds nothing that grows, and finds what does."""

import time
from pathlib import Path

import pytest
import soak
from fuzz_seeds import bundle
from native_kernels import needs_native

pytest.importorskip("onnxruntime")


@needs_native
@pytest.mark.slow
def test_nothing_grows_in_twenty_seconds():
    results = soak.soak(bundle(), list(soak.DRIVERS), 20, seed=19)
    assert [problem for result in results for problem in result.problems] == []
    assert all(result.requests > 10 for result in results)
    assert {"cancel", "timeout", "PromptError", "DoesNotFitError"} <= set(results[0].outcomes)


class Leaky:
    """Keeps memory and a file at each request, or raises an error that is none of sprat's."""

    def __init__(self, error=None):
        self._kept, self._error = [], error

    def generate(self, *_):
        if self._error:
            raise self._error
        time.sleep(0.2)
        self._kept.append((bytearray(b"x") * (32 << 20), [Path(__file__).open() for _ in range(9)]))  # noqa: SIM115 - it is a leak

    chat = abandon = hold = generate

    def processes(self):
        return [soak.os.getpid()]

    def close(self):
        for _, files in self._kept:
            for file in files:
                file.close()


def test_a_leak_and_a_strange_error_are_found(monkeypatch):
    monkeypatch.setitem(soak.DRIVERS, "leaky", lambda _path: Leaky())
    monkeypatch.setitem(soak.DRIVERS, "broken", lambda _path: Leaky(ZeroDivisionError("here")))
    leaky, broken = soak.soak(None, ["leaky", "broken"], 2.0)
    assert any("descriptors" in problem for problem in leaky.problems)
    assert any("resident memory" in problem for problem in leaky.problems)
    assert ["ZeroDivisionError: here" in problem for problem in broken.problems] == [True]
