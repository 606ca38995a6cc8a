"""Closing frees the weights, the threads and the descriptors; what uses a closed engine is told so."""

import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from native_kernels import needs_native
from scripted_model import random_logits, saying, scripted_engine
from tiny_checkpoint import write_checkpoint

from sprat.errors import BackendError, SessionBusyError
from sprat.export.pipeline import export
from sprat.runtime.backends.expert_readahead import ExpertReadahead
from sprat.runtime.engine import Engine
from sprat.runtime.files.gguf import GGUFFile

MESSAGES = [{"role": "user", "content": "The dog"}]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two bundles of tiny MoE models."""
    pytest.importorskip("onnx_ir")
    folder = tmp_path_factory.mktemp("closing")
    sources = [write_checkpoint(folder / f"tiny{seed}-Chat", seed=seed) for seed in (0, 1)]
    return [export(s, folder / f"out{s.name}", quant="int8", formats=("gguf", "onnx")).path for s in sources]


def maps_of(bundle):
    """The maps of this process that are of files in ``bundle``."""
    gc.collect()
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(bundle) in line]


def descriptors_of(bundle):
    links = [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]
    return [link for link in links if str(bundle) in link]


def n_threads():
    return len(list(Path("/proc/self/task").iterdir()))


BACKENDS = [pytest.param("native", marks=needs_native), "reference", "llamacpp", "onnx"]


def load(bundle, backend, **options):
    for module in {"llamacpp": ["llama_cpp"], "onnx": ["onnxruntime", "onnx"]}.get(backend, []):
        pytest.importorskip(module)
    try:
        return Engine.load(bundle, backend=backend, **options)
    except BackendError as error:
        if backend == "llamacpp":
            pytest.skip(f"llama.cpp cannot load the model here: {error}")
        raise


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_closed_engine_holds_no_map_and_raises(bundles, backend):
    engine = load(bundles[0], backend)
    session = engine.session()
    answer = engine.generate("The dog", max_tokens=20)
    next(answer)
    session.chat("The dog", max_tokens=2)
    if backend != "onnx":  # onnxruntime copies what it packs
        assert maps_of(bundles[0])
    engine.close()
    assert maps_of(bundles[0]) == []
    assert descriptors_of(bundles[0]) == []
    for call in (
        lambda: engine.generate("The dog"),
        lambda: engine.chat(MESSAGES),
        lambda: engine.stream_chat(MESSAGES),
        engine.session,
        lambda: engine.encode("The dog"),
        lambda: engine.encode_chat(MESSAGES),
        lambda: session.generate("The dog").text(),
        lambda: session.chat("The dog"),
        answer.text,
    ):
        with pytest.raises(BackendError, match="closed"):
            call()
    engine.close()
    session.close()


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_of_two_engines_in_sequence_one_is_in_memory(bundles, backend):
    for bundle in bundles * 2:
        with load(bundle, backend) as engine:
            engine.chat(MESSAGES, max_tokens=2)
            assert [bool(maps_of(other)) for other in bundles if other != bundle] == [False]


@needs_native
def test_closing_ends_the_threads_of_the_kernels(bundles):
    before = n_threads()
    with Engine.load(bundles[0], backend="native") as engine:
        engine.generate("The dog", max_tokens=2).text()
        n_workers = n_threads() - before
    assert n_workers == len(os.sched_getaffinity(0)) - 1
    assert n_threads() == before


@needs_native
def test_a_pass_of_another_thread_ends_before_the_weights_are_freed(bundles):
    engine, outcome = Engine.load(bundles[0], backend="native"), []
    started = threading.Event()

    def answer():
        try:
            for _ in engine.generate("The dog", max_tokens=4000, min_tokens=4000):
                started.set()
            outcome.append("the end")
        except BackendError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=answer)
    thread.start()
    assert started.wait(60)
    engine.close()
    thread.join(60)
    assert outcome == ["the engine or the session was closed; load the model again"]


def test_a_closed_session_raises_and_the_engine_goes_on(bundles):
    with Engine.load(bundles[0], backend="reference") as engine:
        session = engine.session()
        session.chat("The dog", max_tokens=2)
        session.close()
        session.close()
        with pytest.raises(BackendError, match="the session was closed"):
            session.chat("The dog")
        assert engine.chat(MESSAGES, max_tokens=2)


def test_closing_a_readahead_twice_closes_no_other_file(bundles, tmp_path):
    [path] = bundles[0].glob("*.gguf")
    readahead = ExpertReadahead(GGUFFile.open(path))
    assert descriptors_of(bundles[0])
    readahead.close()
    files = [(tmp_path / str(number)).open("w") for number in range(8)]  # they get the numbers that became free
    readahead.close()
    readahead(1, np.zeros((1, 1), np.int32))
    for file in files:
        file.write("still open")
        file.close()
    assert descriptors_of(bundles[0]) == []


def test_a_readahead_that_is_never_closed_leaves_no_descriptor(bundles):
    [path] = bundles[0].glob("*.gguf")
    ExpertReadahead(GGUFFile.open(path))
    gc.collect()
    assert descriptors_of(bundles[0]) == []


def test_an_engine_that_streams_experts_can_be_closed_twice(bundles, tmp_path):
    engine = Engine.load(bundles[0], device="rpi-zero-2w", memory="104MB", force=True)
    engine.generate("The dog", max_tokens=2).text()
    engine.close()
    with (tmp_path / "other").open("w") as other:
        engine.close()
        other.write("still open")
    with pytest.raises(BackendError, match="the engine was closed"):
        engine.generate("The dog")


def test_one_session_in_two_threads_is_an_error_that_names_the_remedy():
    """The second thread comes while the first is inside a pass."""
    inside, leave, errors = threading.Event(), threading.Event(), []

    def slow_logits(tokens):
        inside.set()
        assert leave.wait(60)
        return random_logits(tokens)

    session = scripted_engine(slow_logits).session()
    answer = session.generate("One:", max_tokens=2)
    thread = threading.Thread(target=answer.text)
    thread.start()
    assert inside.wait(60)
    for use in (
        lambda: next(answer),
        lambda: session.generate("Two:"),
        lambda: session.chat("Two"),
        session.reset,
        session.close,
        answer.close,
    ):
        with pytest.raises(SessionBusyError, match=r"one session per thread \(engine\.session\(\)\)") as raised:
            use()
        errors.append(raised)
    answer.cancel()
    leave.set()
    thread.join(60)
    assert answer.summary.finish_reason == "cancelled"
    assert session.generate("Two:", max_tokens=2).text()


def test_two_threads_in_chat_of_one_session(monkeypatch):
    """Also between two pieces, where nothing runs: the other's answer would be cut off."""
    inside, leave = threading.Event(), threading.Event()
    session = scripted_engine(saying("Paris", "Rome")).session()
    frontend_reply = session._frontend.reply

    def reply(*args, **options):
        stream = frontend_reply(*args, **options)
        if not inside.is_set():
            inside.set()
            assert leave.wait(60)
        return stream

    monkeypatch.setattr(type(session._frontend), "reply", lambda _self, *args, **options: reply(*args, **options))
    replies = []
    thread = threading.Thread(target=lambda: replies.append(session.chat("Where?")))
    thread.start()
    assert inside.wait(60)
    with pytest.raises(SessionBusyError, match="used by another thread"):
        session.chat("And where?")
    leave.set()
    thread.join(60)
    assert replies[0]["choices"][0]["message"]["content"] == "Paris"


def test_a_callback_inside_a_pass_cannot_use_its_session():
    session = scripted_engine(saying("Paris")).session()
    answer = session.generate("Where:", on_prefill=lambda _: session.generate("Another:"))
    with pytest.raises(SessionBusyError, match="the caller of this callback"):
        answer.text()
