"""Hostile values of every parameter, of the commands and of the public functions: a SpratError, or a result.

The parameters are those that click and the signatures list, so that a new one is tried too.
"""

import contextlib
import inspect
import io
import itertools
import os
from pathlib import Path

import click
import pytest
from command_line import run
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_checkpoint import write_checkpoint

import sprat
from sprat.cli import group
from sprat.errors import SpratError

EXAMPLES = 150 if os.environ.get("SPRAT_ATTACK") == "whole" else 5
SLOW = {"export", "quantize", "verify", "bench", "eval"}  # a call of these takes a tenth of a second and more
FAST = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)

TEXTS = [
    *("", " ", ".", "..", "-", "--", "~", "nul\0", "a\0b", "\ud800", "\udcff", "\x1b[2J", "[/x]", "%s%n", "x" * 300),
    *("no/such/file", "fifo", "loop", "folder", "deep.json", "/dev/null", "/dev/zero", "/proc/self/mem", "x" * 70_000),
    *("a=b", "=", "a:1", ":", "*", "nan", "inf", "-inf", "1e400", "9" * 400, "-1", "0", "1", "0x10", "1,2", ",", "{"),
    *(
        "[" * 3000,
        "{}",
        "[]",
        '{"a": NaN}',
        "demo",
        "auto",
        "org/name",
        "org/name@x",
        "int4",
        "keep",
        "q4_0",
        "rpi5-8gb",
    ),
    *("1KB", "0GB"),
]
NUMBERS = [0, 1, -1, 3, 2**31, 2**62, 2**64, -(2**63), 10**400, 0.0, 5e-324, 1.7e308, float("nan"), float("inf"), -0.5]
OBJECTS = [
    None,
    True,
    b"bytes",
    [],
    (),
    {},
    [None],
    ["", ""],
    ["\0"],
    [[]],
    {"a": 1},
    object(),
    Path("fifo"),
    Path("loop"),
]
texts = st.sampled_from(TEXTS) | st.text(max_size=20)
words = texts.filter(lambda text: "\0" not in text)  # no command line can hold it
values = texts | st.sampled_from(NUMBERS) | st.sampled_from(OBJECTS) | st.lists(texts, max_size=3)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a checkpoint, a bundle, and names that are no files."""
    folder = tmp_path_factory.mktemp("hostile")
    sprat.export(write_checkpoint(folder / "student", "qwen2"), folder / "bundle", quant="int8")
    next((folder / "bundle").glob("*.gguf")).rename(folder / "model.gguf")
    (folder / "text.txt").write_text("a b c " * 60)
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    return folder


@pytest.fixture
def inside(models, monkeypatch):
    monkeypatch.chdir(models)
    monkeypatch.setenv("XDG_CACHE_HOME", str(models / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(models / "config"))
    return models


# Function: a call that works. `bench` is refused at its end: measuring takes seconds.
CALLS = {
    "load": {"model": "model.gguf"},
    "inspect": {"path": "model.gguf"},
    "plan": {"model": "model.gguf", "devices": ["rpi5-8gb"]},
    "export": {"source": "student", "out": "out", "force": True},
    "quantize": {"source": "model.gguf", "out": "out.gguf", "force": True},
    "verify": {"artifact": "model.gguf", "source": "student", "backends": ["native"], "max_tokens": 8},
    "report": {"results": ["deep.json"], "out": "page.html"},
    "bench": {"model": "model.gguf", "backend": "no-such-backend"},
}


CALIBRATED = {"quality", "target_size"}  # valid values run the model over a text: tests/export/quality has theirs


def parameters(function):
    """All parameters of a function, of a record of keywords each key."""
    from sprat.export.options import ExportOptions

    names = [name for name in inspect.signature(function).parameters if name not in {"options", "progress"}]
    keys = set(ExportOptions.__dataclass_fields__) - CALIBRATED if function is sprat.export else ()
    return [*names, *sorted(keys)]


def call(name, arguments):
    """Call a public function; its result is used and closed, a SpratError is expected."""
    with contextlib.suppress(SpratError):
        result = getattr(sprat, name)(**{**CALLS[name], **arguments})
        if isinstance(result, sprat.Engine):
            with result as engine:
                list(engine.generate([1, 2], max_tokens=1))


def marked(name, *rest):
    """One set of parameters; slow for functions and commands that are."""
    return pytest.param(name, *rest, marks=pytest.mark.slow if name in SLOW else [])


PARAMETERS = [marked(name, each) for name in CALLS for each in parameters(getattr(sprat, name))]


@pytest.mark.parametrize(("function", "parameter"), PARAMETERS)
@FAST
@given(value=values)
def test_any_value_of_any_parameter_is_taken_or_a_sprat_error(function, parameter, value, inside):
    call(function, {parameter: value})


SAMPLING = ["temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed", "max_tokens", "stop", "timeout"]
OPTIONS = {
    "generate": ["prompt", *SAMPLING],
    "chat": ["messages", "temperature", "stop", "max_tokens", "tools"],
    "encode": ["prompt"],
    "session": ["overflow"],
}


@pytest.fixture(scope="module")
def engine(models):
    with sprat.load(models / "model.gguf") as loaded:
        yield loaded


@pytest.mark.parametrize(("method", "option"), [(name, each) for name, all_ in OPTIONS.items() for each in all_])
@FAST
@given(value=values)
def test_any_value_of_an_engines_options_is_taken_or_a_sprat_error(method, option, value, engine):
    base = {"generate": {"prompt": [1], "max_tokens": 2}, "chat": {"messages": [{"role": "user", "content": "a"}]}}
    with contextlib.suppress(SpratError):
        result = getattr(engine, method)(**{**base.get(method, {}), option: value})
        if method == "generate":
            list(itertools.islice(result, 3))
        if method == "session":
            result.close()


# Command: arguments that work, with which one option after another is tried.
COMMANDS = {
    "inspect": ["model.gguf"],
    "plan": ["model.gguf", "--device", "rpi5-8gb"],
    "export": ["student", "out", "--force"],
    "quantize": ["model.gguf", "out.gguf", "--force"],
    "verify": ["model.gguf", "--source", "student", "--backend", "native", "--max-tokens", "8"],
    "run": ["model.gguf", "hello", "--max-tokens", "2"],
    "report": ["deep.json", "-o", "page.html"],
    "eval": ["model.gguf", "--task", "arithmetic", "--n", "1"],
    "bench": ["model.gguf", "--backend", "no-such-backend", "-p", "1", "-n", "1", "-r", "1"],
    "devices show": ["rpi5-8gb"],
}


def command_of(name):
    found, context = group, click.Context(group)
    for part in name.split():
        found = found.get_command(context, part)
    return found


def options():
    for name in COMMANDS:
        for parameter in command_of(name).params:
            if isinstance(parameter, click.Option) and not parameter.is_flag and not parameter.count:
                yield marked(name, parameter.opts[0], parameter.nargs)


@pytest.mark.parametrize(("command", "option", "n_values"), list(options()))
@FAST
@given(text=words)
def test_any_value_of_any_option_is_taken_or_one_line(command, option, n_values, text, inside, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a prompt"))
    code, printed, error = run(capsys, *command.split(), *COMMANDS[command], option, *[text] * n_values)
    check_ending(code, printed, error)


@pytest.mark.parametrize("command", list(map(marked, COMMANDS)))
@FAST
@given(text=words)
@example(text="fifo")
@example(text="loop")
def test_any_value_of_an_argument_is_taken_or_one_line(command, text, inside, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a prompt"))
    n_arguments = len(list(itertools.takewhile(lambda word: word[0] != "-", COMMANDS[command])))
    for position in range(n_arguments):
        words = list(COMMANDS[command])
        words[position] = text
        check_ending(*run(capsys, *command.split(), *words))


def check_ending(code, printed, error):
    """Exit code 0, 1 (a verification that failed) or 2, and without a terminal no control characters of a name."""
    assert code in {0, 1, 2}
    assert (code == 0) or error.rpartition("sprat: ")[2].count("\n") <= 1 or "Usage" in printed + error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sprat.bench("x", repetitions=0), "repetitions is 0, expected at least 1"),
        (lambda: sprat.bench("x", threads=10**9), "threads is 1000000000, expected 1 to 1024"),
        (lambda: sprat.bench("x", batch=-5, threads=0), "threads is 0.*; batch is -5, expected at least 1"),
        (lambda: sprat.bench("x", sustained_s=float("nan")), "sustained_s is nan"),
        (lambda: sprat.plan("demo", prompt_tokens=-1), "prompt_tokens is -1, expected at least 1"),
    ],
)
def test_values_out_of_range_are_named(call, message):
    with pytest.raises(sprat.InputError, match=message):
        call()


def test_texts_that_are_no_pairs_are_an_input_error(engine):
    with pytest.raises(sprat.InputError, match="texts holds something else than pairs"):
        sprat.evaluate(engine, "prose", texts=[("a",)])
