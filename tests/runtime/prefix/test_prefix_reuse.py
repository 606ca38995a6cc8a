"""Prompts with a common beginning process it once: within an engine, over restarts, with the same answers."""

import dataclasses
import os
import threading
import warnings

import numpy as np
import pytest
from native_kernels import needs_native
from reused_prompts import LONG, answer, need_of_one_cache
from scripted_model import saying, scripted_engine
from tiny_engines import BACKENDS, KINDS, tiny_engine

from sprat.errors import BackendError, DoesNotFitError, InputError, PromptError, SavedStateError
from sprat.runtime.prefix import folder

every_backend = pytest.mark.parametrize("backend", BACKENDS)


@every_backend
@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_with_the_same_beginning_is_answered_alike_from_the_cache(kind, backend):
    with tiny_engine(kind, backend) as engine, tiny_engine(kind, backend, prefix_cache=False) as plain:
        for end, cached in (([7, 8, 9], 0), ([7, 8, 9], 102), ([7, 3], 101), ([5], 100)):
            assert answer(engine, LONG + end) == (answer(plain, LONG + end)[0], cached)
        assert answer(plain, [*LONG, 5])[1] == 0


@every_backend
def test_an_answer_is_part_of_what_is_kept(backend):
    with tiny_engine("deepseek2", backend) as engine:
        ids, _ = answer(engine, LONG)
        assert answer(engine, LONG + ids + [3])[1] == len(LONG) + len(ids) - 1


@every_backend
def test_sessions_and_single_answers_share(backend):
    with tiny_engine("qwen2", backend) as engine:
        answer(engine, [*LONG, 3])
        with engine.session() as session:
            assert answer(session, [*LONG, 4])[1] == len(LONG)
            assert answer(session, [*LONG, 4, 5])[1] > len(LONG)
        assert answer(engine, [*LONG, 4, 6])[1] == len(LONG) + 1


@needs_native
@pytest.mark.parametrize("kind", KINDS)
def test_a_deterministic_engine_reuses_whole_chunks_and_keeps_every_bit(kind):
    options = {"backend": "native", "batch": 16, "deterministic": True}

    def logprobs(engine, prompt):
        generation = engine.generate(prompt, max_tokens=8, temperature=0)
        return [piece.logprob for piece in generation], generation.summary.timings.cache_n

    with tiny_engine(kind, **options) as engine, tiny_engine(kind, prefix_cache=False, **options) as plain:
        for end, cached in (([7, 8, 9], 0), ([7, 8, 9], 96), ([4] * 30, 96), ([4] * 30 + [5], 128)):
            assert logprobs(engine, LONG + end) == (logprobs(plain, LONG + end)[0], cached)
        with engine.session() as session:
            assert logprobs(session, [*LONG, 5, 5])[1] == 96
            assert logprobs(session, [*LONG[:40], 9])[1] == 40  # its own, in other chunks: nothing is added to them


def test_a_shorter_prompt_is_not_taken_too_far():
    with tiny_engine("llama") as engine:
        answer(engine, LONG)
        assert answer(engine, LONG)[1] == len(LONG) - 1
        assert answer(engine, LONG[:50])[1] == 49
        assert answer(engine, [LONG[1], *LONG])[1] == 0


def test_entries_are_given_up_for_streams_and_never_exceed_the_limit():
    with tiny_engine("llama", memory=need_of_one_cache(), context=512) as engine:
        prefixes, cost, rng = engine._prefixes, engine._budget.cost, np.random.default_rng(1)
        for _ in range(10):
            answer(engine, rng.integers(2, 60, 120).tolist())
            assert prefixes.nbytes <= cost.nbytes(512)
            assert engine._budget._used_bytes == prefixes.nbytes
        assert prefixes.nbytes > cost.nbytes(200)
        with engine.session():
            assert prefixes.nbytes == 0
            with pytest.raises(DoesNotFitError):
                engine.session()
        assert answer(engine, LONG)[1] == 0


def test_the_prefix_of_the_prompt_is_the_last_to_go():
    with tiny_engine("llama", memory=need_of_one_cache(), context=512) as engine:
        answer(engine, LONG)
        answer(engine, [9] * 100)
        generation = engine.generate([*LONG, 7], max_tokens=200)  # the other one's memory is enough
        generation.close()
        assert generation.summary.timings.cache_n == len(LONG)


def test_without_a_prefix_cache_nothing_is_kept():
    with tiny_engine("llama", prefix_cache=False) as engine:
        assert [answer(engine, LONG)[1] for _ in range(2)] == [0, 0]


def test_threads_share_one_cache():
    with tiny_engine("deepseek2", prefix_cache=True) as engine:
        expected = {end: answer(engine, [*LONG, end])[0] for end in range(2, 6)}
        wrong = []

        def work(end):
            wrong.extend(end for _ in range(2) if answer(engine, [*LONG, end])[0] != expected[end])

        threads = [threading.Thread(target=work, args=(end,)) for end in expected]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


# A folder


@every_backend
def test_a_prefix_survives_a_restart(backend, tmp_path):
    options = {"backend": backend, "prefix_cache": tmp_path / "cache"}
    with tiny_engine("deepseek2", **options) as engine:
        first, _ = answer(engine, [*LONG, 7])
    assert len(list((tmp_path / "cache").iterdir())) == 1
    with tiny_engine("deepseek2", **options) as engine:
        assert answer(engine, [*LONG, 7]) == (first, len(LONG))
        assert answer(engine, [*LONG, 8])[1] == len(LONG)


def test_what_was_half_written_is_deleted_after_an_hour(tmp_path):
    with tiny_engine("llama", prefix_cache=tmp_path) as engine:
        answer(engine, [*LONG, 7])
    (file,) = tmp_path.iterdir()
    old, new = (file.with_name(f".{file.name}.{pid}.partial") for pid in (1, 2))
    other = tmp_path / f".{'0' * 16}-of-another-model.sprat-prefix.1.partial"
    for partial in (old, new, other):
        partial.write_bytes(b"SPRATSAV")
    for partial in (old, other):
        os.utime(partial, (0, 0))
    with tiny_engine("llama", prefix_cache=tmp_path):
        assert {*tmp_path.iterdir()} == {file, new, other}


def test_what_two_prompts_share_is_written_at_once(tmp_path):
    """A device is unplugged: nothing is closed."""
    engine = tiny_engine("llama", prefix_cache=tmp_path)
    answer(engine, [*LONG, 7])
    assert list(tmp_path.iterdir()) == []
    answer(engine, [*LONG, 8])
    with tiny_engine("llama", prefix_cache=tmp_path) as other:
        assert answer(other, [*LONG, 9])[1] == len(LONG)


def test_little_that_is_new_is_not_written_again(tmp_path):
    for end in range(2, 8):
        with tiny_engine("llama", prefix_cache=tmp_path) as engine:
            answer(engine, [*LONG, end])
    assert len(list(tmp_path.iterdir())) == 1


def test_the_folder_is_bounded_and_drops_what_was_used_longest_ago(tmp_path):
    for start in range(6):
        with tiny_engine("llama", prefix_cache=tmp_path, context=128) as engine:
            answer(engine, [start + 2, *LONG, 7])
            limit = 4 * engine._budget.cost.nbytes(128)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= limit
    with tiny_engine("llama", prefix_cache=tmp_path, context=128) as engine:
        assert answer(engine, [7, *LONG, 7])[1] > 0
        assert answer(engine, [2, *LONG, 7])[1] == 0


def damage_header(data):
    return data[:60] + b"#" + data[61:]


def damage_rows(data):
    return data[:-5000] + bytes(byte ^ 1 for byte in data[-5000:-4990]) + data[-4990:]


@pytest.mark.parametrize("damage", [damage_header, damage_rows, lambda data: data[: len(data) // 2], lambda _: b""])
def test_a_damaged_file_is_a_warning_and_the_prompt_is_processed_again(tmp_path, damage):
    with tiny_engine("llama", prefix_cache=tmp_path) as engine:
        first, _ = answer(engine, [*LONG, 7])
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with (
        pytest.warns(RuntimeWarning, match="the prompt is processed again"),
        tiny_engine("llama", prefix_cache=tmp_path) as engine,
    ):
        assert answer(engine, [*LONG, 7]) == (first, 0)
    with warnings.catch_warnings(action="error"), tiny_engine("llama", prefix_cache=tmp_path) as engine:
        assert answer(engine, [*LONG, 7]) == (first, len(LONG))  # it was written again


def test_a_file_that_is_larger_than_the_folder_may_be_is_not_read(tmp_path):
    with tiny_engine("llama", prefix_cache=tmp_path) as engine:
        answer(engine, [*LONG, 7])
    with warnings.catch_warnings(action="error"), tiny_engine("llama", prefix_cache=tmp_path, context=16) as engine:
        assert answer(engine, LONG[:12])[1] == 0
    assert len(list(tmp_path.iterdir())) == 1


def test_models_share_a_folder_and_not_their_entries(tmp_path):
    for kind in ("llama", "qwen2"):
        for cached in (0, len(LONG)):
            with tiny_engine(kind, prefix_cache=tmp_path) as engine:
                assert answer(engine, [*LONG, 7])[1] == cached
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path):
    engine = tiny_engine("llama", prefix_cache=tmp_path / "folder")
    (tmp_path / "folder").rmdir()
    with pytest.warns(RuntimeWarning, match="the prefix was not saved"), engine:
        answer(engine, LONG)


def test_a_full_storage_is_not_written_again_at_once(tmp_path, monkeypatch):
    attempts, clock = [], [0.0]

    def fail(path, *_):
        attempts.append(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "write_state", fail)
    monkeypatch.setattr(folder.time, "monotonic", lambda: clock[0])
    with tiny_engine("llama", prefix_cache=tmp_path) as engine:
        answer(engine, LONG)
        with pytest.warns(RuntimeWarning, match="the prefix was not saved"):
            answer(engine, LONG)
        answer(engine, LONG)
        assert len(attempts) == 1
        clock[0] = 601
        with pytest.warns(RuntimeWarning, match="the prefix was not saved"):
            answer(engine, LONG)
    assert len(attempts) == 2


def test_other_answers_go_on_while_a_prefix_is_written_and_it_is_written_once(tmp_path, monkeypatch):
    write, started, may_end = folder.write_state, threading.Event(), threading.Event()

    def wait_and_write(*arguments):
        started.set()
        assert may_end.wait(10)
        write(*arguments)

    monkeypatch.setattr(folder, "write_state", wait_and_write)
    with tiny_engine("llama", prefix_cache=tmp_path) as engine:
        answer(engine, [*LONG, 7])
        pieces = []
        generation = engine.generate([*LONG, 8], max_tokens=3, temperature=0)
        thread = threading.Thread(target=lambda: pieces.extend(generation))
        thread.start()
        assert started.wait(10)
        assert answer(engine, [*LONG, 9])[1] == len(LONG)
        assert list(tmp_path.iterdir()) == []
        may_end.set()
        thread.join()
        assert len(pieces) == 3
        assert len(list(tmp_path.iterdir())) == 1


def test_an_answer_that_was_cut_short_writes_nothing(tmp_path):
    with tiny_engine("llama", prefix_cache=tmp_path) as engine:
        answer(engine, [*LONG, 7])
        generation = engine.generate([*LONG, 8], max_tokens=9)
        next(generation)
        generation.cancel()
        list(generation)
        assert list(tmp_path.iterdir()) == []
        answer(engine, [*LONG, 9])
        assert len(list(tmp_path.iterdir())) == 1


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"prefix_cache: .*file is no folder"):
        tiny_engine("llama", prefix_cache=tmp_path / "file")


@pytest.mark.parametrize("value", ["", "a\0b", 5, None])
def test_no_folder_is_an_error(value):
    with pytest.raises(InputError, match="prefix_cache"):
        tiny_engine("llama", prefix_cache=value)


# Sessions


@every_backend
@pytest.mark.parametrize("kind", ["qwen2", "deepseek2"])
def test_a_session_goes_on_in_another_process(kind, backend, tmp_path):
    with tiny_engine(kind, backend) as engine, engine.session() as session:
        ids, _ = answer(session, LONG)
        session.messages.append({"role": "user", "content": "Grüße"})
        session.save(tmp_path / "session")
        expected = answer(session, [*LONG, *ids[:5], 9])
    with tiny_engine(kind, backend, prefix_cache=False) as engine:
        for restore in (engine.restore, lambda path: engine.session(restore=path)):
            with restore(tmp_path / "session") as session:
                assert session.messages == [{"role": "user", "content": "Grüße"}]
                assert session.tokens[: len(LONG)] == tuple(LONG)
                assert answer(session, [*LONG, *ids[:5], 9]) == expected


def test_a_restored_session_replaces_what_was_there(tmp_path):
    with tiny_engine("llama") as engine, engine.session() as session:
        answer(session, LONG)
        held = session.tokens
        session.save(tmp_path / "session")
        answer(session, [5] * 150)
        session.restore(tmp_path / "session")
        assert session.tokens == held


def test_a_session_is_restored_for_its_model_alone(tmp_path):
    with tiny_engine("llama") as engine, engine.session() as session:
        answer(session, LONG)
        session.save(tmp_path / "session")
    with tiny_engine("qwen2") as engine:
        with pytest.raises(SavedStateError, match="saved with another model"):
            engine.restore(tmp_path / "session")
        assert engine._budget._n_streams == 0
    with tiny_engine("llama") as engine:
        with pytest.raises(PromptError, match="context has room for 64"):
            engine.session(context=64, restore=tmp_path / "session")
        with engine.session() as session, pytest.raises(InputError, match="nothing-there"):
            session.restore(tmp_path / "nothing-there")


@every_backend
def test_a_session_is_saved_before_its_first_turn(backend, tmp_path):
    with tiny_engine("deepseek2", backend) as engine, engine.session() as session:
        session.messages.append({"role": "system", "content": "Be kind."})
        session.save(tmp_path / "session")
        expected = answer(session, LONG)[0]
        with engine.restore(tmp_path / "session") as restored:
            assert (restored.messages, restored.tokens) == ([{"role": "system", "content": "Be kind."}], ())
            assert answer(restored, LONG)[0] == expected
            restored.restore(tmp_path / "session")  # over tokens
            assert restored.tokens == ()


def test_messages_that_are_objects_of_a_clients_library_are_saved_as_dicts(tmp_path):
    @dataclasses.dataclass
    class Turn:
        role: str
        content: str

    with tiny_engine("llama") as engine, engine.session() as session:
        session.messages.append(Turn("user", "hi"))
        session.save(tmp_path / "session")
        with engine.restore(tmp_path / "session") as restored:
            assert restored.messages == [{"role": "user", "content": "hi"}]
        session.messages.append("no message")
        with pytest.raises(InputError, match="not what JSON can hold"):
            session.save(tmp_path / "session")


def test_a_file_that_cannot_be_written_is_named_as_the_caller_named_it(tmp_path):
    with tiny_engine("llama") as engine, engine.session() as session:
        (tmp_path / "folder").mkdir()
        for name, why in (("folder", "Is a directory"), ("missing/session", "No such file or directory")):
            with pytest.raises(InputError, match=f"{tmp_path / name}: {why}"):
                session.save(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_what_cannot_be_saved_is_an_error(tmp_path):
    with scripted_engine(saying("Hi.")).session() as session, pytest.raises(BackendError, match="runs no model file"):
        session.save(tmp_path / "session")
    engine = tiny_engine("llama")
    session = engine.session()
    engine.close()
    with pytest.raises(BackendError, match="no KV entries"):
        session.save(tmp_path / "session")
    assert list(tmp_path.iterdir()) == []
