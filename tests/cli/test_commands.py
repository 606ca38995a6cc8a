"""The commands as a user types them: verdict first, JSON for programs, exit codes for scripts."""

import io
import json
import signal
from importlib.util import find_spec

import pytest
from command_line import run
from tiny_checkpoint import write_checkpoint

from sprat.cli import _COMMANDS, main
from sprat.cli.output.reply import print_reply
from sprat.runtime.session import Session


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("source") / "tiny-moe", "deepseek2")


@pytest.fixture(scope="module")
def bundle(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "out"
    main(["export", str(source), str(out), "--quant", "int8"])
    return out


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    assert "Example" in out
    assert f"sprat {name}" in out


@pytest.mark.parametrize("name", ["show", "probe"])
def test_every_subcommand_of_devices_has_help_with_an_example(name, capsys):
    code, out, _ = run(capsys, "devices", name, "--help")
    assert code == 0
    assert f"Example:  sprat devices {name} " in out


def test_help_lists_every_command_and_has_examples(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "Examples:\n    sprat plan deepseek-v2-lite --all" in out
    assert [name for name in _COMMANDS if name not in out] == []


def test_export_prints_the_size_then_the_formats_then_what_to_do_next(source, tmp_path, capsys):
    code, out, _ = run(capsys, "export", str(source), str(tmp_path / "out"), "--quant", "int4")
    lines = out.splitlines()
    assert code == 0
    assert "bits per weight, int4" in lines[0]
    assert "ffn_down_exps" in out
    assert lines[-1].startswith("next:  sprat verify")


def test_export_in_json_is_one_object(source, tmp_path, capsys):
    code, out, _ = run(capsys, "export", str(source), str(tmp_path / "out"), "--device", "rpi5-8gb", "--json")
    record = json.loads(out)
    assert code == 0
    assert record["manifest"]["device"] == "rpi5-8gb"
    assert record["manifest"]["recipe"].split()[0] in {"int8", "int4"}


def test_a_rule_changes_the_format_of_its_tensors(source, tmp_path, capsys):
    code, out, _ = run(
        capsys,
        "export",
        str(source),
        str(tmp_path / "out"),
        "--quant",
        "int4",
        "--tensor",
        "ffn_down_exps=q5_0",
        "--quality",
        "none",
        "--json",
    )
    groups = {group["role"]: group["format"] for group in json.loads(out)["manifest"]["tensor_groups"]}
    assert code == 0
    assert groups["ffn_down_exps"] == "Q5_0"
    assert groups["ffn_up_exps"] == "Q4_0"


def test_verify_passes_and_fails_by_its_limit(source, bundle, capsys):
    arguments = ("verify", str(bundle), "--source", str(source), "--backend", "reference", "--max-tokens", "96")
    code, out, _ = run(capsys, *arguments, "--max-kld", "0.5")
    assert code == 0
    assert out.startswith("PASSED: mean KL divergence")
    assert "====== KL divergence statistics ======" in out
    assert "====== Routing overlap ======" in out
    code, out, _ = run(capsys, *arguments, "--max-kld", "1e-12")
    assert code == 1
    assert out.startswith("FAILED")
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert out.startswith("MEASURED: mean KL divergence")
    assert "of Llama 3 8B in llama.cpp" in out.splitlines()[1]


def test_inspect_shows_a_bundle_and_its_source(source, bundle, capsys):
    code, out, _ = run(capsys, "inspect", str(bundle), "--json")
    found = json.loads(out)
    assert code == 0
    assert found["kind"] == "bundle"
    assert found["cache_kind"] == "latent"
    assert found["cache_bytes_per_token"] == 2 * 4 * (64 + 16)
    assert {runtime["name"]: runtime["loads"] for runtime in found["runtimes"]}["llama.cpp"]
    code, out, _ = run(capsys, "inspect", str(source))
    assert code == 0
    assert out.startswith("checkpoint: tiny-moe")


def test_run_continues_a_prompt_the_same_way_twice(bundle, capsys):
    arguments = ("run", str(bundle), "The dog", "--raw", "-n", "5", "--temp", "1", "--seed", "3", "--json")
    first, second = (json.loads(run(capsys, *arguments)[1]) for _ in range(2))
    assert first["text"] == second["text"]
    assert first["finish_reason"] == "length"
    assert first["usage"]["completion_tokens"] == 5


def test_run_answers_in_openai_format(bundle, capsys):
    code, out, _ = run(capsys, "run", str(bundle), "Hello", "-n", "3", "--temp", "0", "--json")
    reply = json.loads(out)
    assert code == 0
    assert reply["object"] == "chat.completion"
    assert set(reply["choices"][0]["message"]) >= {"role", "content"}


def test_run_takes_an_unquantized_checkpoint(source, capsys):
    code, out, _ = run(capsys, "run", str(source), "The dog", "--raw", "-n", "2", "--temp", "0")
    assert code == 0
    assert out.startswith("The dog")


def test_a_suffix_needs_a_code_model(bundle, capsys):
    code, out, err = run(capsys, "run", str(bundle), "def f(", "--suffix", "return x")
    assert (code, out) == (2, "")
    assert "has no fill-in-the-middle tokens" in err


def test_ctrl_c_stops_the_answer_and_the_chat_goes_on(bundle, capsys, monkeypatch):
    before = signal.getsignal(signal.SIGINT)  # a test that runs in the background ignores SIGINT
    conversations = []

    def interrupted(stream):
        next(stream)
        next(stream)
        signal.raise_signal(signal.SIGINT)
        return print_reply(stream)

    def close(session, *, closed=Session.close):
        conversations.append(session.messages)
        closed(session)

    answers = iter(["hello", "/quit"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _prompt: next(answers))
    monkeypatch.setattr("sprat.cli.answers.chat.print_reply", interrupted)
    monkeypatch.setattr(Session, "close", close)
    code, _, _ = run(capsys, "chat", str(bundle), "-n", "5", "--temp", "0")
    assert code == 0
    assert [message["role"] for message in conversations[0]] == ["user", "assistant"]
    assert signal.getsignal(signal.SIGINT) is before


def test_chat_goes_on_until_quit(bundle, capsys, monkeypatch):
    lines = iter(["hello", "/reset", "again", "/quit"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _prompt: next(lines))
    code, _, err = run(capsys, "chat", str(bundle), "-n", "2", "--temp", "0")
    assert code == 0
    assert err.count("prompt tokens") == 2


def test_quantize_then_inspect(bundle, tmp_path, capsys):
    gguf = next(bundle.glob("*.gguf"))
    out_path = tmp_path / "small.gguf"
    code, out, _ = run(capsys, "quantize", str(gguf), str(out_path), "--quant", "q4_0")
    assert code == 0
    assert out.splitlines()[-1] == f"next:  sprat inspect {out_path}"
    assert out_path.stat().st_size < gguf.stat().st_size


def test_quantize_takes_a_bundle_and_the_packaged_student(bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert run(capsys, "quantize", bundle, tmp_path / "small.gguf", "--quant", "q4_0")[0] == 0
    assert run(capsys, "quantize", "demo", tmp_path / "new" / "demo.gguf", "--quant", "q4_0")[0] == 0
    assert run(capsys, "run", tmp_path / "new" / "demo.gguf", "hi", "-n", "1")[0] == 0
    kept = next((tmp_path / "cache").rglob("*.gguf"))
    written = kept.stat().st_mtime_ns
    assert run(capsys, "quantize", "demo", tmp_path / "demo2.gguf")[0] == 0
    assert kept.stat().st_mtime_ns == written  # it is exported once


def test_quantize_of_a_checkpoint_says_what_does_it(source, tmp_path, capsys):
    code, _, err = run(capsys, "quantize", source, tmp_path / "small.gguf", "--quant", "q4_0")
    assert code == 2
    assert f"`sprat export {source} OUT --quant q4_0` quantizes it" in err


def test_devices_lists_and_shows(capsys):
    assert "rpi5-8gb" in run(capsys, "devices")[1]
    code, out, _ = run(capsys, "devices", "show", "rpi5-8gb")
    assert code == 0
    assert "Cortex-A76" in out
    assert "published" in out


def test_doctor_shows_the_native_core_and_the_backends(capsys):
    code, out, _ = run(capsys, "doctor")
    assert code == 0
    assert "native core" in out
    assert json.loads(run(capsys, "doctor", "--json")[1])["backends"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", "no-such-file.gguf", "hi"), "no-such-file.gguf"),
        (("devices", "show", "rpi5-8g"), "did you mean 'rpi5-8gb'"),
        (("export", "nowhere", "out"), "no such file or directory"),
        (("run", ".", "hi"), "."),
        (("verify", "nowhere", "--source", "nowhere"), "nowhere"),
        (("inspect", "nowhere"), "nowhere"),
        (("export",), "Missing argument 'SOURCE'; see sprat export --help"),
        (("nonsense",), "unknown command 'nonsense' (known: "),
        (("rum",), "unknown command 'rum'; did you mean 'run'?"),
        (("help",), "unknown command 'help': sprat --help lists the commands"),
        (("help", "export"), "sprat COMMAND --help explains one"),
        pytest.param(
            ("serve", "no-such-model"),
            "no-such-model",
            marks=pytest.mark.skipif(find_spec("prometheus_client") is None, reason="pip install 'sprat[serve]'"),
        ),
        (("pull", "deepseek-r1"), "sprat downloads nothing"),
        (("plan", "demo", "--context", "0"), "Invalid value for '-c' / '--context': 0"),
    ],
)
def test_a_user_error_prints_one_line_and_exits_with_2(arguments, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert expected in err
    assert err.startswith("sprat: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_comes_from_standard_input(bundle, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("Where é\n".encode())))
    assert run(capsys, "run", bundle, "-", "--raw", "-n", "1")[1].startswith("Where é")


def test_standard_input_that_is_not_utf8_is_an_error(bundle, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff")))
    code, _, err = run(capsys, "run", bundle, "-", "--raw")
    assert code == 2
    assert "standard input is not UTF-8 text" in err


def test_the_next_command_is_quoted_for_the_shell(source, tmp_path, capsys):
    out = tmp_path / "out mit Leerzeichen"
    following = run(capsys, "export", source, out, "--quant", "int8")[1].splitlines()[-1]
    assert f"sprat verify '{out}' --source" in following
    assert f"sprat run '{out}' 'a prompt'" in following


def test_a_prompt_that_is_not_utf8_prints_one_line(bundle, capsys, monkeypatch):
    code, _, err = run(capsys, "run", str(bundle), "caf\udce9", "-n", "2")  # how Python passes the byte E9
    assert (code, err.count("\n")) == (2, 1)
    assert "the byte 0xE9" in err

    def undecodable(_prompt):
        raise UnicodeDecodeError("utf-8", b"caf\xe9", 3, 4, "unexpected end of data")

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", undecodable)
    code, _, err = run(capsys, "chat", str(bundle))
    assert code == 2
    assert "not valid utf-8" in err.splitlines()[-1]
