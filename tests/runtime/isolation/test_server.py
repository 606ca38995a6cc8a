"""Both sides of the protocol in one process: the server in a thread instead of a child."""

import os
import socket
import threading
import time

import pytest
from tiny_checkpoint import write_checkpoint

from sprat.errors import ModelFileError, SpratError
from sprat.export.pipeline import export
from sprat.runtime.backends.model_stream import ModelStream
from sprat.runtime.engine import Engine
from sprat.runtime.generate.results import FinishReason
from sprat.runtime.interrupt import Interrupt, check_interrupt
from sprat.runtime.isolation import child, messages, process, server
from sprat.runtime.isolation.channels import Channels
from sprat.runtime.isolation.messages import Computed, Failed, Loaded, Opened

PROMPT = "The quick brown fox"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    return next(export(write_checkpoint(folder / "tiny"), folder / "out", quant="int8").path.glob("*.gguf"))


class Thread:
    """Stands for the other process."""

    returncode = -9

    def __init__(self, serve, *ends):
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(serve, ends), daemon=True)
        self._thread.start()

    def _run(self, serve, ends):
        packets, _cancels, region = ends
        try:
            serve(*ends)
        finally:
            os.close(packets)
            os.close(region)
            self.ended.set()

    def kill(self):
        """Nothing: it ends when the socket is closed."""

    def wait(self):
        """Nothing: a server in the middle of a reply is waited for by nobody."""


@pytest.fixture
def served_by(monkeypatch):
    """Let a function serve in a thread."""
    monkeypatch.setattr(child, "enter_sandbox", lambda *_: None)
    monkeypatch.setattr(child, "_end", lambda *_: None)

    def use(serve):
        def start(region):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            read_cancels, write_cancels = os.pipe()
            read_errors, write_errors = os.pipe()
            os.close(write_errors)
            thread = Thread(serve, theirs.detach(), read_cancels, os.dup(region))
            return Channels(ours.detach(), write_cancels, read_errors), thread

        monkeypatch.setattr(process, "start", start)

    return use


def serve(packets, cancels, region):
    child.main(packets, cancels, region, os.getppid())


def load(model):
    return Engine.load(model, backend="reference", isolate=True, context=64)


@pytest.fixture
def engine(model, served_by):
    served_by(serve)
    with load(model) as engine:
        yield engine


def test_the_server_computes_what_the_backend_does(engine, model):
    with Engine.load(model, backend="reference", context=64) as plain:
        texts = [one.generate(PROMPT, max_tokens=8, temperature=0).text() for one in (plain, engine)]
        assert texts[0] == texts[1]
        first, second = (one.backend.new_stream(40).forward_all(list(range(30))) for one in (plain, engine))
        assert (first == second).all()


def test_the_server_goes_on_after_errors_and_interrupts(engine):
    expected = engine.generate(PROMPT, max_tokens=4, temperature=0).text()
    stream = engine.backend.new_stream(8)
    with pytest.raises(SpratError, match="8"):
        stream.forward([1] * 9)
    stream.forward([1, 2, 3])
    stream.truncate(1)
    stream.forward([4])
    assert stream.length == 2
    stream.close()
    for interrupt in (Interrupt(time.monotonic()), Interrupt()):
        interrupt.cancel()
        with interrupt:
            engine.backend.new_stream(8).forward([1])
            pytest.fail("it was set before")
    assert engine.generate(PROMPT, max_tokens=4, temperature=0).text() == expected


def test_a_cancel_reaches_a_pass_that_runs(model, served_by, monkeypatch):
    reached = threading.Event()

    def forward(_self, _tokens):
        reached.set()
        while True:
            check_interrupt()

    served_by(serve)
    with load(model) as engine:
        monkeypatch.setattr(ModelStream, "forward", forward)
        answer = engine.generate(PROMPT)
        threading.Thread(target=lambda: reached.wait(60) and answer.cancel()).start()
        list(answer)
        assert answer.summary.finish_reason == FinishReason.CANCELLED


def test_a_model_that_cannot_be_opened_there_is_its_error(model, served_by, monkeypatch):
    served_by(serve)

    def refuse(*_, **__):
        raise ModelFileError("damaged")

    monkeypatch.setattr(server, "open_model", refuse)
    with pytest.raises(ModelFileError, match="damaged"):
        load(model)


def test_a_process_that_hears_nothing_ends(model):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    child.main(theirs.fileno(), -1, -1, os.getppid())
    theirs.close()


LOADED = Loaded(1, 512, 512)
BAD_REPLIES = {
    "no message": (b"\xc1",),
    "nothing": (),
    "another reply to load": (Opened(1),),
    "another vocabulary": (Loaded(1, 513, 512),),
    "an error that is none of sprat's": (Failed(1, "SystemExit", "out", 0),),
    "an error that is no error": (Failed(1, "unknown_name", "out", 0),),
    "another reply to a stream": (LOADED, Computed(2, 0, 1)),
    "logits that are not there": (LOADED, Opened(2), Computed(3, 1, 2)),
    "fewer than no logits": (LOADED, Opened(2), Computed(3, 1, -1)),
    "an interrupt that nobody asked for": (LOADED, Opened(2), Computed(3, 1, 0)),
    "another reply to a pass": (LOADED, Opened(2), Loaded(3, 512, 512)),
    "a reply to an older request, and the end": (LOADED, Opened(2), Computed(1, 1, 1)),
}


@pytest.mark.parametrize("name", BAD_REPLIES)
def test_a_process_in_other_hands_is_an_error(model, served_by, name):
    def lie(packets, _cancels, _region):
        for reply in BAD_REPLIES[name]:
            messages.receive_request(packets)
            os.write(packets, reply) if isinstance(reply, bytes) else messages.send(packets, reply)

    served_by(lie)
    with pytest.raises(SpratError), load(model) as engine:  # noqa: PT012 - whichever call hears it
        stream = engine.backend.new_stream(8)
        stream.forward([1])


@pytest.mark.parametrize("length", [-5, 3, 10**12])
def test_a_length_that_cannot_be_is_not_believed(model, served_by, length):
    def lie(packets, _cancels, _region):
        for reply in (LOADED, Opened(2), Computed(3, length, 1)):
            messages.receive_request(packets)
            messages.send(packets, reply)
        messages.receive_request(packets)

    served_by(lie)
    with load(model) as engine:
        stream = engine.backend.new_stream(8)
        stream.forward([1, 2])
        assert 0 <= stream.length <= 2
