"""The asynchronous engine: the answers of the engine, many at a time; cancelling by task; limits."""

import asyncio
import gc
import threading
import time

import numpy as np
import pytest
from scripted_model import random_logits, saying, scripted_engine
from tiny_engines import tiny_engine

import sprat
from sprat.errors import BackendError, InputError, PromptError, QueueFullError, SessionBusyError, SpratError
from sprat.runtime.async_engine.embedding import Embeddings

PATTERN = [5, 9, 7] * 6
QUESTION = [{"role": "user", "content": "Where?"}]


def forever(_tokens):
    """Logits that say ``a`` for ever, 5 ms each."""
    time.sleep(0.005)
    logits = np.zeros(260, np.float32)
    logits[ord("a")] = 100
    return logits


def run(test, engine, **settings):
    """Run the coroutine function ``test`` with an asynchronous engine; it is closed afterwards."""

    async def whole():
        async with sprat.AsyncEngine(engine, **settings) as asynchronous:
            await test(asynchronous)

    asyncio.run(whole())
    assert engine.backend.closed
    assert all(stream.closed for stream in engine.backend.streams)


async def until(holds):
    """Wait for a condition."""
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.002)


def test_a_stream_has_the_chunks_of_the_engine():
    async def test(engine):
        chunks = [chunk async for chunk in engine.stream_chat(QUESTION)]
        expected = list(scripted_engine(saying("Paris")).stream_chat(QUESTION))
        assert [chunk["choices"] for chunk in chunks] == [chunk["choices"] for chunk in expected]
        assert chunks[-1]["usage"] == expected[-1]["usage"]

    run(test, scripted_engine(saying("Paris")))


def test_chat_and_generate_return_whole_answers():
    async def test(engine):
        completion = await engine.chat(QUESTION)
        assert completion["choices"][0]["message"]["content"] == "Paris"
        generation = engine.generate("Where:")
        assert await generation.text() == "Paris"
        assert (await generation.summary()).usage.completion_tokens == 6

    run(test, scripted_engine(saying("Paris")))


def test_many_answers_at_a_time_are_those_of_one_at_a_time():
    prompts = [f"question {number}:" for number in range(12)]
    alone = [scripted_engine(random_logits).generate(prompt, max_tokens=20, temperature=0).text() for prompt in prompts]

    async def test(engine):
        answers = (engine.generate(prompt, max_tokens=20, temperature=0) for prompt in prompts)
        assert await asyncio.gather(*(answer.text() for answer in answers)) == alone

    run(test, scripted_engine(random_logits), parallel=4, queue=12)


def test_errors_of_the_engine_are_raised_where_the_answer_is_taken():
    async def test(engine):
        with pytest.raises(PromptError, match="the conversation is empty"):
            await engine.chat([])
        with pytest.raises(InputError, match="temperature"):
            await engine.chat(QUESTION, temperature=-1)

    run(test, scripted_engine(saying("Paris")))


def test_a_task_that_is_cancelled_ends_its_answer():
    async def test(engine):
        task = asyncio.create_task(engine.chat(QUESTION))
        await until(lambda: engine.n_running == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: engine.n_running == 0)

    run(test, scripted_engine(forever))


def test_leaving_the_block_of_a_stream_ends_its_answer():
    async def test(engine):
        async with engine.generate("x") as stream:
            async for piece in stream:
                assert piece.text == "a"
                break
        assert engine.n_running == 0

    run(test, scripted_engine(forever))


def test_a_stream_that_nobody_refers_to_ends():
    async def test(engine):
        stream = engine.generate("x")
        assert (await anext(stream)).text == "a"
        del stream
        gc.collect()
        await until(lambda: engine.n_running == 0)

    run(test, scripted_engine(forever))


def test_cancel_keeps_what_was_generated():
    async def test(engine):
        stream = engine.stream_chat(QUESTION)
        await anext(stream)
        await anext(stream)
        stream.cancel()
        completion = await stream.completion()
        assert completion["choices"][0]["finish_reason"] == "cancelled"
        assert set(completion["choices"][0]["message"]["content"]) == {"a"}

    run(test, scripted_engine(forever))


def test_a_full_queue_refuses_and_a_waiting_answer_can_be_cancelled():
    async def test(engine):
        async with engine.generate("x"):
            waiting = engine.generate("y")
            assert (engine.n_running, engine.n_waiting) == (1, 1)
            with pytest.raises(QueueFullError, match="1 answers are being generated and 1 wait"):
                engine.generate("z")
            waiting.cancel()
            assert engine.n_waiting == 0
            with pytest.raises(SpratError, match="cancelled before it began"):
                await waiting.text()
            async with engine.generate("z"):
                assert engine.n_waiting == 1

    run(test, scripted_engine(forever), parallel=1, queue=1)


def test_a_higher_priority_starts_first():
    async def test(engine):
        running = engine.generate("x")
        await anext(running)
        low, high = engine.generate("low", max_tokens=1), engine.generate("high", max_tokens=1, priority=1)
        ended = []

        async def wait(name, stream):
            await stream.text()
            ended.append(name)

        waits = asyncio.gather(wait("low", low), wait("high", high))
        running.cancel()
        await waits
        assert ended == ["high", "low"]

    run(test, scripted_engine(forever), parallel=1)


def test_a_session_keeps_its_cache_between_turns():
    async def test(engine):
        async with await engine.session() as session:
            first = await session.chat("one")
            second = await session.chat("two")
            assert [reply["choices"][0]["message"]["content"] for reply in (first, second)] == ["Paris", "Rome"]
            assert second["timings"]["cache_n"] > 0
            assert [message["role"] for message in session.messages] == ["user", "assistant"] * 2

    run(test, scripted_engine(saying("Paris", "Rome")))


def test_a_session_is_saved_and_restored(tmp_path):
    async def test():
        async with sprat.AsyncEngine(tiny_engine("llama")) as engine:
            async with await engine.session() as session:
                generation = session._session.generate(PATTERN, max_tokens=3, temperature=0)
                expected = [piece.token_id for piece in generation]
                await session.save(tmp_path / "saved")
            async with await engine.session(restore=tmp_path / "saved") as restored:
                assert restored._session.tokens == (*PATTERN, *expected[:2])

    asyncio.run(test())


def test_drafts_are_checked_while_an_answer_is_alone():
    options = {"max_tokens": 24, "temperature": 0}
    with tiny_engine("llama", speculate="off") as plain:
        expected = plain.generate(PATTERN, **options).text()

    async def test():
        async with sprat.AsyncEngine(tiny_engine("llama", prefix_cache=False), parallel=3) as engine:
            engine.engine.frontend.speculation.pace.always = True
            alone = engine.generate(PATTERN, **options)
            assert await alone.text() == expected
            assert (await alone.summary()).timings.draft_n_accepted > 0
            answers = [engine.generate(PATTERN, **options) for _ in range(6)]
            assert await asyncio.gather(*(answer.text() for answer in answers)) == [expected] * 6

    asyncio.run(test())


def test_a_conversation_that_is_too_long_is_shortened():
    turns = [{"role": "user", "content": "0123456789" * 4}, {"role": "assistant", "content": "x"}, *QUESTION]

    async def test(engine):
        with pytest.raises(PromptError, match="the context holds 50"):
            await engine.chat(turns)
        reply = await engine.chat(turns, overflow="shift", max_tokens=8)
        assert reply["choices"][0]["message"]["content"] == "Paris"
        chunks = [chunk async for chunk in engine.stream_chat(turns, overflow="shift", max_tokens=8)]
        assert chunks[-1]["usage"] == reply["usage"]

    run(test, scripted_engine(saying("Paris"), context=50))


def test_a_session_gives_one_answer_at_a_time_and_closing_ends_it():
    async def test(engine):
        session = await engine.session()
        stream = session.stream_chat("one")
        await anext(stream)
        with pytest.raises(SessionBusyError, match="last answer has not ended"):
            await session.chat("two")
        await session.close()
        await session.close()
        assert engine.n_running == 0

    run(test, scripted_engine(forever))


def test_closing_ends_all_answers():
    async def test(engine):
        streams = [engine.generate("x") for _ in range(3)]
        await anext(streams[0])
        await engine.close()
        assert engine.n_running == 0
        with pytest.raises(SpratError, match="cancelled before it began"):
            await streams[2].text()
        with pytest.raises(BackendError, match="the engine was closed"):
            engine.generate("y")

    run(test, scripted_engine(forever), parallel=2)


def test_a_loop_that_ends_leaves_no_answer_behind():
    engine = scripted_engine(forever)

    async def begin():
        asynchronous = sprat.AsyncEngine(engine)
        stream = asynchronous.generate("x")
        await anext(stream)
        return asynchronous, stream

    asynchronous, _stream = asyncio.run(begin())
    began = time.monotonic()
    while asynchronous.n_running:
        assert time.monotonic() - began < 60
        time.sleep(0.002)
    asyncio.run(asynchronous.close())


def test_several_loops_may_share_an_engine():
    asynchronous = sprat.AsyncEngine(scripted_engine(saying("Paris")), parallel=2)
    texts = []

    def ask():
        completion = asyncio.run(asynchronous.chat(QUESTION))
        texts.append(completion["choices"][0]["message"]["content"])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(asynchronous.close())
    assert texts == ["Paris"] * 4


@pytest.mark.parametrize("settings", [{"parallel": 0}, {"queue": -1}, {"parallel": "2"}])
def test_wrong_limits_are_refused(settings):
    with pytest.raises(InputError):
        sprat.AsyncEngine(scripted_engine(saying("x")), **settings)


def test_loading_takes_what_an_engine_takes(tmp_path):
    path = sprat.export("demo", tmp_path / "out", quant="int8").path

    async def test():
        async with await sprat.AsyncEngine.load(path, context=512, parallel=5) as engine:
            questions = [[{"role": "user", "content": f"What is {n} plus 25?"}] for n in range(10, 20)]
            alone = [engine.engine.chat(question, temperature=0)["choices"] for question in questions]
            together = await asyncio.gather(*(engine.chat(question, temperature=0) for question in questions))
            assert [completion["choices"] for completion in together] == alone

    asyncio.run(test())


def test_embeddings_are_the_engines_and_end_when_they_are_cancelled():
    async def embedded(engine, texts):
        async with sprat.AsyncEngine(engine) as serving:
            return await serving.embed(texts, normalize=False)

    tokens = [[1, 2, 3], [4, 5]]
    with tiny_engine("deepseek2", "reference") as engine:
        expected = engine.embed(tokens, normalize=False)
        cancelled = Embeddings(engine, tokens, normalize=True)
        np.testing.assert_array_equal(next(cancelled), engine.embed(tokens[:1])[0])
        cancelled.cancel()
        assert list(cancelled) == []
        np.testing.assert_array_equal(asyncio.run(embedded(engine, tokens)), expected)
