"""One token of each of several sequences in one pass: the logits, and the caches, of passes one by one."""

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

import sprat
from sprat.errors import BackendError, PromptError
from sprat.runtime.backends.protocol import RunsTogether

PROMPTS = ([1, 2, 3, 4, 5, 6, 7], [8], [9, 10, 11], list(range(40)), [5, 5])
STEPS = ([11, 12, 13, 14, 15], [21, 22, 23, 24, 25])


@pytest.fixture(scope="module", params=["deepseek2", "qwen2", "llama"])
def path(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return sprat.export(write_checkpoint(folder / "ck", request.param), folder / "out", quant="int4").path


def streams_of(backend, count):
    streams = [backend.new_stream(64) for _ in range(count)]
    for stream, prompt in zip(streams, PROMPTS, strict=False):
        stream.forward(prompt)
    return streams


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("cache", ["f16", "int8"])
def test_the_native_backend_has_the_bits_of_each_alone(path, cache, count):
    with sprat.load(path, backend="native", cache=cache) as engine:
        backend = engine.backend
        assert isinstance(backend, RunsTogether)
        assert count <= backend.max_together
        alone, together = streams_of(backend, count), streams_of(backend, count)
        for step in STEPS:
            expected = np.stack([stream.forward([token]) for stream, token in zip(alone, step, strict=False)])
            np.testing.assert_array_equal(backend.forward_each(together, step[:count]), expected)
        assert [stream.length for stream in together] == [stream.length for stream in alone]
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one.forward([3, 4, 5]), other.forward([3, 4, 5]))


def test_the_reference_agrees(path):
    with sprat.load(path, backend="reference") as engine:
        alone, together = streams_of(engine.backend, 3), streams_of(engine.backend, 3)
        model = together[0]._opened()[0]
        found = model.forward_each(STEPS[0][:3], [stream._opened()[1] for stream in together])
        expected = np.stack([stream.forward([token]) for stream, token in zip(alone, STEPS[0], strict=False)])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_full_cache_leaves_the_others_as_they_are(path):
    with sprat.load(path, backend="native") as engine:
        full, other = engine.backend.new_stream(1), engine.backend.new_stream(8)
        full.forward([1])
        with pytest.raises(PromptError, match="do not fit"):
            engine.backend.forward_each([other, full], [1, 2])
        assert (full.length, other.length) == (1, 0)


def test_a_closed_stream_is_named(path):
    with sprat.load(path, backend="native") as engine:
        streams = streams_of(engine.backend, 2)
        streams[1].close()
        with pytest.raises(BackendError, match="closed"):
            engine.backend.forward_each(streams, [1, 2])
