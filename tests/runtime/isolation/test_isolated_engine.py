"""``Engine.load(isolate=True)`` gives the same answers, ends with its process, and survives it."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from native_kernels import needs_native
from tiny_checkpoint import write_checkpoint

from sprat.errors import BackendDiedError, BackendError, DoesNotFitError, InputError, ModelFileChangedError, PromptError
from sprat.export.pipeline import export
from sprat.runtime.engine import Engine
from sprat.runtime.isolation.process import Expected

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="seccomp")

BACKENDS = [
    pytest.param("native", marks=needs_native),
    "reference",
    pytest.param("onnx", marks=pytest.mark.skipif("not __import__('importlib').util.find_spec('onnxruntime')")),
]
PROMPT = "The quick brown fox"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    pytest.importorskip("onnx_ir")
    folder = tmp_path_factory.mktemp("isolated")
    return export(write_checkpoint(folder / "tiny-Chat"), folder / "out", quant="int8", formats=("gguf", "onnx")).path


@pytest.fixture(scope="module")
def engine(bundle):
    with Engine.load(bundle, backend="reference", isolate=True) as engine:
        yield engine


def child_of(engine):
    return engine.backend.process_id


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ends(pid):
    end = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not is_alive(pid)


@pytest.mark.parametrize("backend", BACKENDS)
def test_answers_and_logits_are_those_of_the_same_backend(bundle, backend):
    with Engine.load(bundle, backend=backend) as plain, Engine.load(bundle, backend=backend, isolate=True) as isolated:
        assert isolated.backend.name == backend
        texts = [one.generate(PROMPT, max_tokens=8, temperature=0).text() for one in (plain, isolated)]
        assert texts[0] == texts[1]
        first, second = (one.backend.new_stream(40) for one in (plain, isolated))
        for tokens in ([3, 4, 5], [6]):
            np.testing.assert_array_equal(first.forward(tokens), second.forward(tokens))
        first.truncate(2)
        second.truncate(2)
        np.testing.assert_array_equal(first.forward_all(list(range(9))), second.forward_all(list(range(9))))
        assert first.length == second.length == 11


def test_more_logits_than_the_region_holds_come_in_parts(bundle, monkeypatch):
    monkeypatch.setattr("sprat.runtime.isolation.region._SHARED_BYTES", 4 * 512 * 3)
    monkeypatch.setattr("sprat.runtime.isolation.channels._CHILD", "sprat_small_region")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(bundle), os.environ.get("PYTHONPATH", "")]))
    (bundle / "sprat_small_region.py").write_text(
        "import sys\nfrom sprat.runtime.isolation import child, region\nregion._SHARED_BYTES = 4 * 512 * 3\n"
        "child.main(*map(int, sys.argv[1:]))\n"
    )
    with Engine.load(bundle, backend="reference") as plain, Engine.load(bundle, backend="reference", isolate=True) as e:
        tokens = list(range(20))
        expected = plain.backend.new_stream(40).forward_all(tokens)
        np.testing.assert_array_equal(e.backend.new_stream(40).forward_all(tokens), expected)


def test_logits_that_are_kept_do_not_change(engine):
    stream = engine.backend.new_stream(40)
    kept = [stream.forward([token]) for token in range(8)]
    copies = [logits.copy() for logits in kept]
    views = [logits[:5] for logits in kept]
    for token in range(8):
        stream.forward([token])
    for logits, copy, view in zip(kept, copies, views, strict=True):
        np.testing.assert_array_equal(logits, copy)
        np.testing.assert_array_equal(view, copy[:5])
    view = stream.forward([1])[:5]
    copy = view.copy()
    for token in range(8):
        stream.forward([token])
    np.testing.assert_array_equal(view, copy)


def test_sessions_and_threads_take_turns(bundle):
    with Engine.load(bundle, backend="reference", isolate=True) as engine:
        expected = [engine.generate(f"{PROMPT} {number}", max_tokens=6, temperature=0).text() for number in range(4)]
        found = [None] * 4

        def answer(number):
            with engine.session() as session:
                found[number] = session.generate(f"{PROMPT} {number}", max_tokens=6, temperature=0).text()

        threads = [threading.Thread(target=answer, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == expected


def test_errors_keep_their_kind_and_the_process_lives(engine):
    stream = engine.backend.new_stream(8)
    with pytest.raises(PromptError, match="8"):
        stream.forward(list(range(9)))
    with pytest.raises(PromptError):
        stream.forward([10**6])
    with pytest.raises(PromptError, match="far outside"):
        stream.forward([2**40])
    with pytest.raises(PromptError, match="in one pass"):
        stream.forward([1] * (1 << 17))
    assert stream.length == 0
    assert stream.forward([1]).shape == (512,)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_process_that_dies_in_the_middle_of_an_answer_is_an_error(bundle, number):
    engine = Engine.load(bundle, backend="reference", isolate=True)
    answer = engine.generate(PROMPT, max_tokens=200, temperature=0)
    next(answer)
    threading.Timer(0.05, os.kill, (child_of(engine), number)).start()
    with pytest.raises(  # noqa: PT012 - whichever answer it hits
        BackendDiedError, match=f"{signal.Signals(number).name}.*load the model again"
    ):
        for _ in range(1000):
            list(engine.generate(PROMPT, max_tokens=200, temperature=0))
    with pytest.raises(BackendDiedError):
        engine.generate(PROMPT)
    with pytest.raises(BackendDiedError):
        engine.session()
    engine.close()
    engine.close()
    with Engine.load(bundle, backend="reference", isolate=True) as again:
        assert again.generate(PROMPT, max_tokens=3).text() is not None


def test_a_closed_engine_and_stream_say_so(bundle):
    engine = Engine.load(bundle, backend="reference", isolate=True)
    pid, stream, closed = child_of(engine), engine.backend.new_stream(8), engine.backend.new_stream(8)
    closed.close()
    closed.close()
    assert closed.length == 0
    for call in (lambda: closed.forward([1]), lambda: closed.truncate(0)):
        with pytest.raises(BackendError, match="closed"):
            call()
    engine.close()
    assert not is_alive(pid)
    for call in (lambda: stream.forward([1]), lambda: engine.backend.new_stream(8)):
        with pytest.raises(BackendError, match="closed; load the model again") as error:
            call()
        assert not isinstance(error.value, BackendDiedError)


def test_an_engine_that_nobody_uses_ends_its_process(bundle):
    engine = Engine.load(bundle, backend="reference", isolate=True)
    pid = child_of(engine)
    del engine
    gc.collect()
    assert not is_alive(pid)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_a_cancel_and_a_timeout_end_an_answer(bundle, backend, how):
    """The cancel comes after the first token, the timeout before it; the same engine then answers as before."""
    with Engine.load(bundle, backend=backend, isolate=True) as engine:
        expected = engine.generate(PROMPT, max_tokens=4, temperature=0).text()
        answer = engine.generate(PROMPT, temperature=0, **({"timeout": 1e-6} if how == "timeout" else {}))
        if how == "cancel":
            next(answer)
            answer.cancel()
        list(answer)
        assert answer.summary.finish_reason == ("cancelled" if how == "cancel" else "timeout")
        assert engine.generate(PROMPT, max_tokens=4, temperature=0).text() == expected


def test_a_pass_that_ignores_its_cancel_is_ended_with_its_process(bundle, monkeypatch):
    monkeypatch.setattr("sprat.runtime.isolation.backend._expected", lambda _request: Expected(grace_s=0.1))
    engine = Engine.load(bundle, backend="reference", isolate=True)
    pid = child_of(engine)
    answer = engine.generate(PROMPT)
    next(answer)
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.1, answer.cancel).start()
    with pytest.raises(BackendDiedError, match="still computed"):
        list(answer)
    assert ends(pid)
    engine.close()


def test_an_exception_of_a_signal_handler_leaves_a_working_engine(engine):
    expected = engine.generate(PROMPT, max_tokens=4, temperature=0).text()

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for delay in np.linspace(0.0005, 0.02, 20):
            with engine.session() as session:
                signal.setitimer(signal.ITIMER_REAL, delay)
                with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - wherever it comes
                    for _ in range(100):
                        list(session.generate(PROMPT, max_tokens=40, temperature=0))
                assert session.generate(PROMPT, max_tokens=4, temperature=0).text() == expected
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_the_memory_contract_counts_the_second_process(bundle):
    def smallest(**options):
        """The least memory, in MiB, with which the model loads."""
        for n_mib in range(60, 400, 4):
            try:
                Engine.load(bundle, memory=n_mib << 20, context=64, backend="reference", **options).close()
            except DoesNotFitError:
                continue
            return n_mib
        return None

    assert 44 <= smallest(isolate=True) - smallest() <= 64


def test_too_much_memory_in_the_process_is_an_error(bundle):
    with Engine.load(bundle, backend="reference", isolate=True, memory="400MB") as engine:
        with pytest.raises(BackendDiedError, match=r"[Mm]emory"):
            engine.backend.new_stream(1 << 26)
        with pytest.raises(BackendDiedError):
            engine.generate(PROMPT)


def test_a_file_that_changes_is_named(bundle, tmp_path):
    copy = tmp_path / "model.gguf"
    copy.write_bytes(next(bundle.glob("*.gguf")).read_bytes())
    with Engine.load(copy, backend="reference", isolate=True) as engine:
        os.utime(copy, (1, 1))
        with pytest.raises(ModelFileChangedError, match=r"model\.gguf"):
            engine.generate(PROMPT, max_tokens=2).text()


@needs_native
def test_guesses_of_an_isolated_model_change_no_answer(bundle):
    options = {"max_tokens": 20, "temperature": 1.0, "seed": 2}
    with Engine.load(bundle, backend="native", isolate=True, speculate="off") as plain:
        expected = plain.generate(PROMPT, **options).text()
    with Engine.load(bundle, backend="native", isolate=True) as engine:
        engine.frontend.speculation.pace.always = True
        assert engine.generate(PROMPT, **options).text() == expected
        repeated = engine.generate(PROMPT, **options)
        assert repeated.text() == expected
        assert repeated.summary.timings.draft_n_accepted > 0


def test_kv_entries_of_an_isolated_model_stay_where_they_are(bundle, engine, tmp_path):
    for _ in range(2):
        generation = engine.generate(PROMPT, max_tokens=2)
        generation.text()
    assert generation.summary.timings.cache_n == 0
    with engine.session() as session:
        session.generate(PROMPT, max_tokens=2).text()
        for use in (session.save, session.restore):
            with pytest.raises(BackendError, match="another process \\(isolate=True\\)"):
                use(tmp_path / "session")
    with pytest.raises(BackendError, match="a process of its own does not give out its KV entries"):
        Engine.load(bundle, isolate=True, prefix_cache=tmp_path)


def test_a_checkpoint_is_not_isolated():
    import sprat

    with pytest.raises(InputError, match="isolate"):
        sprat.load("demo", isolate=True)


SCRIPT = """
import os, sys, time
from sprat.errors import BackendError
from sprat.runtime.engine import Engine
from sprat.runtime.isolation.process import Expected

engine = Engine.load(sys.argv[1], backend="reference", isolate=True)
print(engine.backend.process_id, flush=True)
"""


def started(bundle, script, **options):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT + script, bundle], stdout=subprocess.PIPE, **options)
    return process, int(process.stdout.readline())


@pytest.mark.parametrize(
    "how",
    [
        "returns",
        "is killed while it computes",
        *(pytest.param(how, marks=pytest.mark.slow) for how in ("exits", "is killed")),
    ],
)
def test_the_end_of_the_interpreter_leaves_no_orphan(bundle, how):
    scripts = {
        "returns": "",
        "exits": "os._exit(0)",
        "is killed": "time.sleep(600)",
        "is killed while it computes": "print('x', flush=True)\nwhile True: list(engine.generate([1] * 400))",
    }
    process, pid = started(bundle, scripts[how])
    with process:
        if "killed" in how:
            if "computes" in how:
                process.stdout.readline()
            process.kill()
        process.wait(60)
    assert ends(pid)


def test_a_fork_that_lives_longer_keeps_no_process(bundle):
    """It has copies of all descriptors, so that the process sees no end of them."""
    script = "child = os.fork()\nif not child: time.sleep(600)\nprint(child, flush=True)\nos.kill(os.getpid(), 9)"
    process, pid = started(bundle, script)
    with process:
        fork = int(process.stdout.readline())
        process.wait(60)
        try:
            assert ends(pid)
        finally:
            os.kill(fork, signal.SIGKILL)


def test_a_fork_is_refused_and_ends_nothing(bundle):
    script = """
child = os.fork()
if not child:
    try:
        engine.generate("x", max_tokens=1).text()
    except BackendError as error:
        engine.close()
        del engine
        os._exit(7 if "forked" in str(error) else 8)
    os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(engine.generate("x", max_tokens=2).text()) >= 0)
"""
    process, _pid = started(bundle, script)
    with process:
        assert process.stdout.read() == b"7 True\n"
        assert process.wait(60) == 0
