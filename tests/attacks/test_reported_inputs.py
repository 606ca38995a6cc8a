"""Inputs of the first attack that no other test has, as they were reported; README.md has the table of all."""

import json
import os
import resource
import subprocess
import sys

import gguf
import pytest
from command_line import run
from scripted_model import random_logits, scripted_engine
from tiny_checkpoint import write_checkpoint

import sprat
from sprat.errors import DoesNotFitError, SpratError, TokenizerError
from sprat.runtime.tokenizer.tokenizer import Tokenizer

DEEP = "[" * 100_000
LONG = "n" * 300


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A checkpoint, and a bundle of it."""
    folder = tmp_path_factory.mktemp("reported")
    source = write_checkpoint(folder / "student", "qwen2")
    sprat.export(source, folder / "bundle", quant="int8")
    return folder


@pytest.fixture
def source(tmp_path):
    return write_checkpoint(tmp_path / "student", "qwen2")


@pytest.fixture
def refused(capsys):
    """A function: a command ends with 2 and one line, which is returned."""

    def check(*arguments):
        code, _, error = run(capsys, *arguments)
        assert code == 2, (arguments, error)
        return only_line(error)

    return check


def only_line(error):
    """The one line of an error, after those of progress."""
    lines = error.splitlines()
    assert "Traceback" not in error, error
    assert [line for line in lines if line.startswith("sprat: ")] == lines[-1:], error
    return lines[-1]


def in_a_process(*arguments, seconds=60, **environment):
    """Exit code and messages of a command that must not hang."""
    command = [sys.executable, "-m", "sprat", *map(str, arguments)]
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return done.returncode, done.stderr


def test_verify_refuses_a_text_without_text(models, refused, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    bundle = models / "bundle"
    error = refused("verify", bundle, "--source", models / "student", "--text", tmp_path / "empty.txt")
    assert "the text to score is empty" in error


def test_a_fifo_as_manifest_is_refused_at_once(tmp_path):
    (tmp_path / "bundle").mkdir()
    os.mkfifo(tmp_path / "bundle" / "manifest.json")
    for command in ("run", "inspect", "bench"):
        code, error = in_a_process(command, tmp_path / "bundle")
        assert (code, error.count("Traceback")) == (2, 0), error


@pytest.mark.parametrize("content", ["fifo", "a = " + DEEP, "\0", "a = " + "9" * 5000])
def test_a_broken_profile_of_the_user_hides_no_other(content, tmp_path):
    profile = tmp_path / "sprat" / "devices" / "x.toml"
    profile.parent.mkdir(parents=True)
    if content == "fifo":
        os.mkfifo(profile)
    else:
        profile.write_text(content)
    for arguments in (["devices"], ["plan", "demo", "--all"]):
        code, error = in_a_process(*arguments, XDG_CONFIG_HOME=str(tmp_path))
        assert (code, error.count("Traceback")) == (0, 0), error
        assert "x.toml" in error


@pytest.mark.parametrize("amount", ["9" * 400, "1e400", "9" * 400 + "GB", "-1GB"])
def test_a_memory_of_400_digits_is_refused(models, refused, amount):
    assert "memory" in refused("run", models / "bundle", "hi", "--memory", amount)


@pytest.mark.parametrize("align", [2**31, 2**62, 10**30, -64, 3])
def test_an_alignment_that_no_file_needs_is_refused_without_memory(models, refused, align, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused("export", models / "student", tmp_path / "out", "--align", align)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB
    assert not list(tmp_path.iterdir())


def test_a_message_may_hold_the_words_of_every_private_use_character():
    words = " ".join(f"{code:04x}" for code in range(0xE000, 0xF900))
    template = "{% for message in messages %}{{ message['content'] | length }}{% endfor %}"
    with scripted_engine(random_logits, template=template) as engine:
        assert engine.chat([{"role": "user", "content": words}], max_tokens=1)


@pytest.mark.parametrize("template", ["", "{# #}", "{% if false %}a{% endif %}", "{{ '' }}"])
def test_a_template_that_renders_nothing_is_a_prompt_error(source, tmp_path, template):
    settings = {"add_bos_token": False, "chat_template": template}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    sprat.export(source, tmp_path / "out", quant="int8")
    with sprat.load(tmp_path / "out") as engine, pytest.raises(SpratError, match="template"):
        engine.chat([{"role": "user", "content": "hi"}])


def test_a_tokenizer_without_its_unknown_token_is_an_error(tmp_path):
    model = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<missing>"}
    text = json.dumps({"version": "1.0", "added_tokens": [], "model": model})
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(TokenizerError):
        Tokenizer.from_file(tmp_path).encode("b")


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "added_tokens.json"]
)
@pytest.mark.parametrize("text", [DEEP, '{"a":' * 50_000, "[" * 900 + "]" * 900, "\xff", '{"a": NaN', "9" * 5000])
def test_a_nested_or_broken_file_of_a_checkpoint_ends_in_one_line(source, tmp_path, capsys, name, text):
    (source / name).write_bytes(text.encode("latin-1"))
    code, _, error = run(capsys, "export", source, tmp_path / "out")
    assert code in {0, 2}
    assert code == 0 or "sprat: " in error
    assert "Traceback" not in error


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 50_000, ""])
def test_nested_results_and_plans_are_refused(refused, tmp_path, text):
    (tmp_path / "results.jsonl").write_text(text)
    refused("report", tmp_path / "results.jsonl", "-o", tmp_path / "page.html")
    refused("bench", "--compare", tmp_path / "results.jsonl", tmp_path / "results.jsonl")


@pytest.mark.parametrize(
    "settings",
    [
        {"chat_template": [1]},
        {"chat_template": [{"name": "default"}]},
        {"chat_template": [{"name": "default", "template": 5}]},
        {"chat_template": {"a": 1}},
        {"added_tokens_decoder": {"5": {"content": 5}}},
        {"bos_token": "", "eos_token": ""},
        {"bos_token": 5, "eos_token": [1]},
    ],
)
def test_a_bundle_of_odd_tokenizer_settings_can_be_opened_or_is_not_made(source, tmp_path, capsys, settings):
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    code, _, error = run(capsys, "export", source, tmp_path / "out")
    assert code in {0, 2}
    assert "Traceback" not in error
    assert (code == 0) == (tmp_path / "out").exists()
    if code == 0:
        assert run(capsys, "inspect", tmp_path / "out")[0] == 0
        assert run(capsys, "run", tmp_path / "out", "hi", "--raw", "--max-tokens", "1")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", LONG, "hi"],
        ["inspect", LONG],
        ["plan", LONG],
        ["export", LONG, "out"],
        ["export", "student", LONG],
        ["quantize", "bundle", LONG + ".gguf"],
        ["report", LONG, "-o", "page.html"],
        ["export", "student", "a/" * 2500],
    ],
)
def test_a_name_that_no_file_system_takes_is_one_line(models, refused, monkeypatch, arguments):
    monkeypatch.chdir(models)
    refused(*arguments)


def test_long_names_inside_of_files_are_one_line(models, source, refused, tmp_path):
    index = {"weight_map": {"lm_head.weight": f"{LONG}.safetensors"}}
    (source / "model.safetensors").unlink()
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    refused("export", source, tmp_path / "out")
    manifest = json.loads((models / "bundle" / "manifest.json").read_text())
    manifest["files"][0]["name"] = manifest["artifacts"][0]["file"] = f"{LONG}.gguf"
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(manifest))
    refused("run", tmp_path / "bundle", "hi")


@pytest.mark.parametrize("name", ["manifest.json", "*.gguf", "tokenizer.json"])
def test_a_link_to_itself_in_a_bundle_is_one_line(models, capsys, tmp_path, name):
    for path in (models / "bundle").iterdir():
        target = tmp_path / path.name
        if path.match(name):
            target.symlink_to(path.name)
        else:
            target.write_bytes(path.read_bytes())
    code, _, error = run(capsys, "run", tmp_path, "hi")
    assert code == 2
    assert only_line(error)


def test_a_cache_folder_that_cannot_be_written_stops_no_command(models):
    for command in (["inspect", models / "bundle"], ["run", models / "bundle", "hi", "--max-tokens", "1"]):
        code, error = in_a_process(*command, XDG_CACHE_HOME="/proc/nothing", HOME="/proc/nothing")
        assert (code, error.count("Traceback")) == (0, 0), error


def test_a_context_of_two_billion_is_refused(models, refused):
    with pytest.raises(SpratError):
        sprat.load(models / "bundle", context=2**31)
    refused("run", models / "bundle", "hi", "--context", 2**31)


def test_a_file_that_declares_a_context_of_two_billion_takes_no_memory(source, tmp_path):
    """The default context is shorter; all of it is refused, or fits."""
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2**31 - 1}))
    sprat.export(source, tmp_path / "out", quant="int8")
    with sprat.load(tmp_path / "out") as engine, engine.session() as session:
        assert session.generate("Hi", max_tokens=1).text() is not None
    with sprat.load(tmp_path / "out", context=2**31 - 1) as engine:
        with pytest.raises(DoesNotFitError, match=r"2,147,483,647 tokens needs .*, which this system does not give"):
            engine.session()
        assert engine.generate("Hi", max_tokens=1).text() is not None


def test_a_file_without_a_tokenizer_takes_ids_and_says_so_of_text(models, tmp_path):
    path = tmp_path / "ids.gguf"
    reader = gguf.GGUFReader(next((models / "bundle").glob("*.gguf")))
    writer = gguf.GGUFWriter(path, "qwen2")
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "tokenizer.", "general.architecture")):
            writer.add_key_value(field.name, field.contents(), field.types[0])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with sprat.load(path) as engine:
        assert len(list(engine.generate([7, 8], max_tokens=2, temperature=0))) == 2
        with pytest.raises(TokenizerError, match="the model has no tokenizer"):
            engine.generate("text").text()


def test_a_refusal_has_enough_digits_to_tell_the_two_amounts_apart(models):
    """Also where the budget is one byte too small."""
    least = next(n for n in range(8 << 20, 1 << 30, 1 << 20) if fits(models / "bundle", n))
    while fits(models / "bundle", least - 4096):
        least -= 4096
    with pytest.raises(DoesNotFitError) as caught:
        sprat.load(models / "bundle", memory=least - 4096)
    amounts = [word for word in str(caught.value).replace(",", "").split() if word[0].isdigit() and "." in word]
    assert len(amounts) >= 2, caught.value
    assert len(set(amounts[:2])) == 2, caught.value


def fits(path, n_bytes):
    try:
        sprat.load(path, memory=n_bytes).close()
    except SpratError:
        return False
    return True
