"""``sprat chat`` and what a terminal can take."""

import io
import json
import sys

import pytest
from command_line import run
from scripted_model import saying, scripted_engine
from tiny_checkpoint import write_checkpoint

from sprat.cli import main
from sprat.export.pipeline import export
from sprat.runtime.frontend import Frontend


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    return export(write_checkpoint(folder / "source", "qwen2"), folder / "out", quant="int8").path


def chat(capsys, monkeypatch, bundle, lines, *options):
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    return run(capsys, "chat", bundle, "-c", "64", "-n", "4", "--temp", "0", *options)


LONG = "hello there my friend how are you doing today\n" * 3


def test_a_full_context_is_a_message_and_the_prompt_again(bundle, capsys, monkeypatch):
    code, _, err = chat(capsys, monkeypatch, bundle, LONG + "/reset\nhi\n")
    assert code == 0
    assert err.count("/reset starts a new conversation, --overflow shift drops old turns") >= 1
    assert err.splitlines()[-1].startswith("[")  # the timings of the last answer


def test_old_turns_are_dropped_on_request(bundle, capsys, monkeypatch):
    code, _, err = chat(capsys, monkeypatch, bundle, LONG, "--overflow", "shift")
    assert (code, "sprat:" in err) == (0, False)
    assert sum(line.startswith("[") for line in err.splitlines()) == 3


def test_variables_of_the_template(bundle, capsys):
    arguments = ("run", bundle, "hi", "-n", "1", "--chat-template-kwargs")
    assert run(capsys, *arguments, '{"enable_thinking": false}')[0] == 0
    for wrong in ("{", "[1]", "{'a': 1}"):
        code, _, err = run(capsys, *arguments, wrong)
        assert (code, "expected a JSON object" in err, len(err.splitlines())) == (2, True, 1)


class Terminal(io.TextIOWrapper):
    """Standard output with an encoding, on a terminal or not."""

    def __init__(self, encoding, is_terminal):
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal

    def written(self):
        return self.buffer.getvalue()


def say(monkeypatch, text, *options, encoding="utf-8", is_terminal=False):
    """What ``sprat run`` writes when the model says ``text``."""
    terminal = Terminal(encoding, is_terminal)
    monkeypatch.setattr("sprat.cli.answers.run.load_checked", lambda *_, **__: scripted_engine(saying(text)))
    monkeypatch.setattr(sys, "stdout", terminal)
    main(["run", "model", "hi", *options])
    return terminal.written()


def test_characters_that_the_terminal_lacks_are_escaped(monkeypatch):
    assert say(monkeypatch, "é👍", encoding="latin-1") == "é".encode("latin-1") + b"\\U0001f44d\n"
    assert say(monkeypatch, "日", encoding="cp1252") == b"\\u65e5\n"
    assert say(monkeypatch, "é👍") == "é👍\n".encode()


def test_json_is_utf8_on_every_terminal(monkeypatch):
    written = say(monkeypatch, "é👍", "--json", encoding="latin-1")
    assert json.loads(written.decode())["choices"][0]["message"]["content"] == "é👍"


def test_an_answer_cannot_take_over_the_terminal(monkeypatch):
    answer = "a\x1b[2Jb\tc\nd"
    assert say(monkeypatch, answer, is_terminal=True) == b"a\\x1b[2Jb\tc\nd\n"
    assert say(monkeypatch, answer) == answer.encode() + b"\n"  # a file gets the bytes


def conversation(monkeypatch, capsys, lines, *options):
    """What the model was sent, as texts, and standard error, of a chat with ``lines``."""
    engine = scripted_engine(saying(*["Yes."] * 9))
    prompts = []

    original = Frontend.encode_chat

    def encode_chat(frontend, messages, options=None):
        prompts.append([(message["role"], message["content"]) for message in messages])
        return original(frontend, messages, options)

    monkeypatch.setattr(Frontend, "encode_chat", encode_chat)
    monkeypatch.setattr("sprat.cli.answers.chat.load_checked", lambda *_, **__: engine)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    code, _, err = run(capsys, "chat", "model", *options)
    assert code == 0, err
    return prompts[1:], err  # without the one that tests the template


def test_a_system_message_comes_first_and_outlives_a_reset(monkeypatch, capsys):
    prompts, _ = conversation(monkeypatch, capsys, ["hi", "/reset", "again"], "--system", "Be brief.")
    assert prompts[0] == [("system", "Be brief."), ("user", "hi")]
    assert prompts[-1] == [("system", "Be brief."), ("user", "again")]


def test_the_system_message_can_be_replaced_and_removed(monkeypatch, capsys):
    lines = ["hi", "/system You are a bird.", "and now", "/system", "and then"]
    prompts, _ = conversation(monkeypatch, capsys, lines)
    assert prompts[0] == [("user", "hi")]
    assert prompts[1][0] == ("system", "You are a bird.")
    assert [role for role, _ in prompts[1]] == ["system", "user", "assistant", "user"]
    assert [role for role, _ in prompts[2]] == ["user", "assistant", "user", "assistant", "user"]


def test_help_and_unknown_commands_are_not_sent(monkeypatch, capsys):
    prompts, err = conversation(monkeypatch, capsys, ["/help", "/save x", "/sytem a", "/quit", "never"])
    assert prompts == []
    assert "/system TEXT  set the system message" in err
    assert "unknown command '/save' (known: /help, /quit, /reset, /system)" in err
    assert "unknown command '/sytem'; did you mean '/system'?" in err


@pytest.mark.parametrize(
    ("line", "sent"),
    [("//help me", "/help me"), (" /help me", "/help me"), ("/home/ada/x", "/home/ada/x"), ("/ by zero", "/ by zero")],
)
def test_a_message_may_begin_with_a_slash(line, sent, monkeypatch, capsys):
    prompts, _ = conversation(monkeypatch, capsys, [line])
    assert prompts == [[("user", sent)]]


def test_the_old_name_of_the_overflow_policy_is_said_to_go(bundle, capsys, monkeypatch):
    code, _, err = chat(capsys, monkeypatch, bundle, "hi\n", "--overflow", "stop")
    assert (code, err.count("--overflow stop is now --overflow error")) == (0, 1)


def test_a_prompt_is_reused_by_the_next_process(bundle, capsys, tmp_path):
    cached = []
    for question in ("one", "two"):
        prompt = "The quick brown fox jumps over the lazy dog. " * 6 + question
        code, out, _ = run(capsys, "run", bundle, prompt, "-n", "2", "--prefix-cache", tmp_path / "cache", "--json")
        assert code == 0
        cached.append(json.loads(out)["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached[0] == 0
    assert cached[1] > 64
    code, _, err = run(capsys, "run", "demo", "hi", "--prefix-cache", tmp_path / "cache")
    assert (code, "no choice of prefix_cache" in err) == (2, True)
