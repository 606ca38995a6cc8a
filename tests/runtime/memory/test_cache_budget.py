"""A memory limit counts the KV caches of all sessions."""

import gc

import pytest
from native_kernels import needs_native
from tiny_checkpoint import write_checkpoint

from sprat.errors import DoesNotFitError, InputError
from sprat.export.pipeline import export
from sprat.runtime.backends.registry import BackendChoice, LoadRequest, chosen_footprint
from sprat.runtime.engine import Engine
from sprat.runtime.open_model import open_model

CONTEXT = 1024
MESSAGES = [{"role": "user", "content": "The dog"}]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("budget")
    return export(
        write_checkpoint(folder / "tiny-Chat", max_position_embeddings=4096), folder / "out", quant="int8"
    ).path


def footprint(bundle, backend):
    model = open_model(bundle)
    request = LoadRequest(file=model.file, spec=model.spec, context=CONTEXT, n_threads=2)
    return chosen_footprint(BackendChoice(backend), request)


@pytest.fixture(params=[pytest.param("native", marks=needs_native), "reference"])
def backend(request):
    return request.param


@pytest.fixture
def limits(bundle, backend):
    """Engine.load's keywords for a memory in which ``n`` caches fit."""
    needed = footprint(bundle, backend)

    def keywords(n):
        return {
            "backend": backend,
            "context": CONTEXT,
            "memory": needed.total_bytes + int((n - 1) * needed.cache_bytes),
        }

    return keywords


def test_a_session_too_many_is_refused_and_a_closed_one_makes_room(bundle, limits):
    with Engine.load(bundle, **limits(2)) as engine:
        first, second = engine.session(), engine.session()
        for refused in (engine.session, lambda: engine.generate("The dog"), lambda: engine.chat(MESSAGES)):
            with pytest.raises(DoesNotFitError, match="close one of the 2 that are open, or allow more memory"):
                refused()
        first.chat("The dog", max_tokens=2)
        second.close()
        second.close()  # gives its share back once
        engine.chat(MESSAGES, max_tokens=2)
        with engine.session():
            pass
        with engine.session(), pytest.raises(DoesNotFitError):
            engine.session()


def test_a_collected_session_makes_room(bundle, limits):
    with Engine.load(bundle, **limits(1)) as engine:
        engine.session()  # dropped
        gc.collect()
        engine.generate("The dog", max_tokens=3)  # dropped, and never begun
        gc.collect()
        answer = engine.generate("The dog", max_tokens=3)
        next(answer)
        del answer
        gc.collect()
        with engine.session() as session:
            assert session.chat("The dog", max_tokens=2)


def test_the_message_says_how_many_tokens_fit_and_they_do(bundle, limits):
    with Engine.load(bundle, **limits(1.5)) as engine, engine.session():
        with pytest.raises(DoesNotFitError, match=r"use at most 512 tokens \(context=\)"):
            engine.session()
        with engine.session(context=512) as short:
            assert short.chat("The dog", max_tokens=2)
            with pytest.raises(DoesNotFitError):
                engine.session(context=1)


def test_short_answers_take_short_caches(bundle, limits):
    with Engine.load(bundle, **limits(1.1)) as engine, engine.session():
        assert engine.generate("The dog", max_tokens=4).text() is not None
        assert engine.chat(MESSAGES, max_tokens=4)
        with pytest.raises(DoesNotFitError):
            engine.chat(MESSAGES)


def test_without_a_limit_nothing_is_refused(bundle, backend):
    with Engine.load(bundle, backend=backend, context=CONTEXT) as engine:
        sessions = [engine.session() for _ in range(20)]
        assert sessions[-1].chat("The dog", max_tokens=2)


def test_a_session_is_not_longer_than_the_engine(bundle, backend):
    with (
        Engine.load(bundle, backend=backend, context=CONTEXT) as engine,
        pytest.raises(InputError, match="context is 2048, expected 1 to 1024"),
    ):
        engine.session(context=2048)


@pytest.mark.parametrize("batch", [0, -1, True, 1.5, "8", 1 << 20])
def test_a_batch_that_is_no_number_of_tokens(bundle, batch):
    with pytest.raises(InputError, match=r"batch is .*, expected (1 to 65,536 prompt tokens|int \| None)"):
        Engine.load(bundle, batch=batch)


def test_the_batch_is_the_prompt_tokens_of_one_pass(bundle, backend):
    states = []
    with Engine.load(bundle, backend=backend, batch=7) as engine:
        engine.generate(list(range(3, 23)), max_tokens=1, on_prefill=states.append).text()
    assert [state.done for state in states] == [7, 14, 20]
