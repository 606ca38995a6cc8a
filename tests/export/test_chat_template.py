"""The chat template of an export: tried, carried into every artifact, and replaced on request."""

import json

import pytest
from command_line import run
from tiny_checkpoint import BOS, EOS, write_checkpoint

from sprat.errors import InputError, TemplateError
from sprat.export.inspection import inspect
from sprat.export.pipeline import export
from sprat.runtime.engine import Engine

QUESTION = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def source(tmp_path):
    return write_checkpoint(tmp_path / "source", "qwen2")


def configure(source, **settings):
    path = source / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings, ensure_ascii=False))


def template_warnings(source, out, **options):
    result = export(source, out, quant="int8", **options)
    return [warning for warning in result.bundle.manifest.warnings if "chat template" in warning]


BROKEN = {
    "{{ x": ["chat template: cannot be parsed: unexpected end of template, expected 'end of print statement'"],
    "{{ messages[0].content | nofilter }}": ["chat template: cannot be parsed: No filter named 'nofilter'"],
    "{% if messages[0].role == 'system' %}{{ raise_exception('No system role.') }}{% endif %}": [
        "chat template: with a system message: failed: No system role"
    ],
    "{% if tools %}{{ tools[0].name.x }}{% endif %}": [
        "chat template: with tools: failed: 'dict object' has no attribute 'name'"
    ],
    "{% if thinking %}{{ 1 / 0 }}{% endif %}": ["chat template: with thinking: failed: division by zero"],
    "{{ messages[0].content }}": [],
}


@pytest.mark.parametrize(("template", "expected"), BROKEN.items())
def test_what_a_template_cannot_render_is_a_warning(template, expected, source, tmp_path):
    configure(source, chat_template=template)
    out = tmp_path / "out"
    found = template_warnings(source, out)
    assert [warning[: len(start)] for warning, start in zip(found, expected, strict=True)] == expected
    for path in (out, next(out.glob("*.gguf")), source):
        assert [note for note in inspect(path).notes if note.startswith("chat template")] == found


@pytest.mark.parametrize("format", ["gguf", "onnx"])
def test_a_model_with_a_broken_template_loads_and_continues_text(format, source, tmp_path, capsys):
    configure(source, chat_template="{{ x")
    export(source, tmp_path / "out", quant="int8", formats=[format])
    with Engine.load(tmp_path / "out") as engine:
        engine.generate("Hello", max_tokens=1).text()
        with pytest.raises(TemplateError, match=r"^\S+: the chat template cannot be parsed: .*generate\(\)"):
            engine.chat(QUESTION)
    code, _, err = run(capsys, "run", tmp_path / "out", "Hello", "-n", "1", "--raw")
    assert (code, "template" in err) == (0, False)
    for command in (["run", tmp_path / "out", "Hello"], ["chat", tmp_path / "out"]):
        code, _, err = run(capsys, *command)
        assert (code, "--raw" in err, len(err.splitlines())) == (2, True, 1)


def test_a_model_without_a_template_says_so(source, tmp_path):
    path = source / "tokenizer_config.json"
    path.write_text(json.dumps({"bos_token": BOS, "eos_token": EOS}))
    assert template_warnings(source, tmp_path / "out") == [
        "no chat template: the model continues text, but cannot chat; export it with --chat-template FILE"
    ]


def test_templates_that_are_no_text_are_left_out_with_a_warning(source, tmp_path):
    configure(
        source, chat_template=[{"name": "default", "template": 5}, {"name": "rag", "template": "{{ bos_token }}"}]
    )
    found = template_warnings(source, tmp_path / "out")
    assert found[0] == "chat template: 1 of 2 in tokenizer_config.json are not text with a name; left out"
    assert found[1] == "chat template: none is called 'default'; a conversation must name one of rag"
    with Engine.load(tmp_path / "out") as engine:
        assert engine.encode_chat(QUESTION, chat_template="rag").text == BOS


def test_a_template_file_that_is_not_utf8_is_left_out_with_a_warning(source, tmp_path):
    (source / "chat_template.jinja").write_bytes(b"\xff{{ messages }}")
    assert "chat_template.jinja cannot be read" in template_warnings(source, tmp_path / "out")[0]


@pytest.mark.parametrize("format", ["gguf", "onnx"])
@pytest.mark.parametrize("where", ["config", "files"])
def test_all_templates_and_special_tokens_arrive(format, where, source, tmp_path):
    shown = "{{ bos_token }}{{ eos_token }}{{ sep_token }}{{ image_token }}{{ pad_token is defined }}"
    templates = {"default": f"default {shown}", "tool_use": f"tools {shown}", "rag": f"documents {shown}"}
    configure(source, bos_token={"content": BOS}, eos_token=None, sep_token="<sep>", image_token="<image>")
    if where == "files":
        (source / "chat_template.jinja").write_text(templates["default"])
        (source / "additional_chat_templates").mkdir()
        for name in ("tool_use", "rag"):
            (source / "additional_chat_templates" / f"{name}.jinja").write_text(templates[name])
    else:
        configure(source, chat_template=[{"name": name, "template": text} for name, text in templates.items()])
    first, second = tmp_path / "first", tmp_path / "second"
    export(source, first, quant="int8", formats=[format])
    bundles = [first]
    if format == "gguf":
        export(next(first.glob("*.gguf")), second, quant="int8")
        bundles.append(second)
    for path in bundles:
        with Engine.load(path) as engine:
            expected = f"{BOS}<sep><image>False"
            assert engine.encode_chat(QUESTION).text == f"default {expected}"
            assert engine.encode_chat(QUESTION, tools=[]).text == f"tools {expected}"
            assert engine.encode_chat(QUESTION, chat_template="rag").text == f"documents {expected}"


@pytest.mark.parametrize("format", ["gguf", "onnx"])
def test_another_template_replaces_all_of_the_source(format, source, tmp_path):
    configure(source, chat_template=[{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}])
    other = tmp_path / "other.jinja"
    other.write_text("other {{ bos_token }}{{ messages[0].content }}")
    out = tmp_path / "out"
    export(source, out, quant="int8", formats=[format], chat_template=other)
    with Engine.load(out) as engine:
        assert engine.encode_chat(QUESTION).text == engine.encode_chat(QUESTION, tools=[]).text == f"other {BOS}Hi"
    assert (out / "chat_template.jinja").read_text() == other.read_text()


def test_the_option_of_the_command(source, tmp_path, capsys):
    other = tmp_path / "other.jinja"
    other.write_text("{{ messages[0].content }}")
    arguments = ("export", source, tmp_path / "out", "--quant", "int8", "--chat-template", other)
    assert run(capsys, *arguments)[0] == 0
    assert "up to date" in run(capsys, *arguments)[1]
    other.write_text("{{ messages[0].role }}")
    code, _, err = run(capsys, *arguments)
    assert (code, "another bundle exists" in err) == (2, True)


def test_a_file_that_is_no_template_is_an_error(source, tmp_path):
    other = tmp_path / "other.jinja"
    with pytest.raises(InputError, match=r"other\.jinja: the chat template cannot be read"):
        export(source, tmp_path / "out", chat_template=other)
    other.write_bytes(b"\xff")
    with pytest.raises(InputError, match="pass a file in UTF-8"):
        export(source, tmp_path / "out", chat_template=other)
    other.write_text("{% if %}")
    with pytest.raises(TemplateError, match="cannot be parsed"):
        export(source, tmp_path / "out", chat_template=other)
