"""The Go template gives the prompts of the chat template: rendered by Go itself."""

import dataclasses
import json
import shutil
import subprocess

import pytest

from sprat.export.card.modelfile import go_template, modelfile
from sprat.export.card.turn_format import Turn, turn_format
from tests.export.card.test_turn_format import FIXED, template

CONVERSATIONS = [
    [("user", "What is 2+2?")],
    [("user", 'A "quote"\n{{ .Role }}'), ("assistant", "<b>1 & 2</b>"), ("user", "\\n stays")],
    [("system", "Be\u3000brief.\U000e0001"), ("user", "Größe?"), ("assistant", "Ja."), ("user", "日本")],
]
PROGRAM = """
package main

import ("encoding/json"; "os"; "text/template")

type Message struct { Role, Content string }
type Case struct { Template string; Messages []Message }

func main() {
    var cases []Case
    if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil { panic(err) }
    out := []string{}
    for _, c := range cases {
        t := template.Must(template.New("").Parse(c.Template))
        file, _ := os.CreateTemp("", "prompt")
        if err := t.Execute(file, map[string]any{"Messages": c.Messages}); err != nil { panic(err) }
        text, _ := os.ReadFile(file.Name())
        os.Remove(file.Name())
        out = append(out, string(text))
    }
    json.NewEncoder(os.Stdout).Encode(out)
}
"""


def printable(text):
    """What Ollama keeps of a Modelfile: it drops other characters (``parser.go``)."""
    return "".join(character for character in text if character.isprintable() or character == "\n")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed (apt install golang-go)")
def test_go_renders_the_prompts_of_the_chat_template(tmp_path):
    cases, expected = [], []
    for name in FIXED:
        found = turn_format(template(name))
        for turns in CONVERSATIONS:
            if turns[0][0] == "system" and found.system is None:
                continue
            messages = [{"role": role, "content": content} for role, content in turns]
            expected.append(template(name).render(messages))
            sent = messages
            if found.default_system is not None and turns[0][0] != "system":  # SYSTEM of the Modelfile
                sent = [{"role": "system", "content": found.default_system}, *messages]
            cases.append({"Template": printable(go_template(found)), "Messages": sent})
    (tmp_path / "main.go").write_text(PROGRAM, encoding="utf-8")
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(tmp_path), "GOCACHE": str(tmp_path / "cache")}
    rendered = subprocess.run(
        ["go", "run", "main.go"],
        check=False,
        cwd=tmp_path,
        input=json.dumps(cases),
        env=environment,
        capture_output=True,
        text=True,
    )
    assert rendered.returncode == 0, rendered.stderr
    assert json.loads(rendered.stdout) == expected


def test_the_token_that_the_runtime_writes_is_left_out():
    assert go_template(turn_format(template("deepseek-v3")), bos="<s>").startswith("{{- range")
    assert "<s>" in go_template(turn_format(template("deepseek-v3")))


def test_the_text_of_a_modelfile():
    text = modelfile(
        "student-Q4_0.gguf",
        turn_format(template("smollm2")),
        bos=None,
        stop=["<|im_end|>"],
        sampling={"temperature": 0.6, "top_p": 0.95, "repeat_penalty": 1.0},
        context=4096,
    )
    first, rest = text.split("SYSTEM ", 1)
    assert first.splitlines() == [
        "FROM ./student-Q4_0.gguf",
        "PARAMETER num_ctx 4096",
        "PARAMETER temperature 0.6",
        "PARAMETER top_p 0.95",
        "PARAMETER repeat_penalty 1",
        'PARAMETER stop "<|im_end|>"',
    ]
    assert rest.startswith('"""You are a helpful AI assistant named SmolLM, trained by Hugging Face"""\nTEMPLATE """')


def test_a_template_without_fixed_text_is_left_to_the_gguf():
    text = modelfile("a.gguf", None, bos=None, stop=[], sampling={}, context=512)
    assert "\nTEMPLATE" not in text
    assert "# There is no TEMPLATE here" in text


@pytest.mark.parametrize("text", ["<|im_end|>", "<｜end▁of▁sentence｜>", "a b", "back\\slash", 'a "quote"', "</s>\n"])
def test_a_stop_string_stands_between_quotes_without_escapes(text):
    """Ollama takes off the quotes and replaces no escape."""
    written = modelfile("a.gguf", None, bos=None, stop=[text], sampling={}, context=512)
    value = written.split("PARAMETER stop ", 1)[1].split("\n#", 1)[0]
    quotes = '"""' if value.startswith('"""') else '"'
    assert value == quotes + text + quotes
    assert len(quotes) == 3 or not set(text) & set('"\n')


def test_a_limit_of_tokens_is_a_whole_number():
    written = modelfile("a.gguf", None, bos=None, stop=[], sampling={"top_k": 1_500_000.0}, context=512)
    assert "PARAMETER top_k 1500000\n" in written


def test_what_ollama_drops_is_escaped_in_the_template():
    found = turn_format(template("smollm2"))
    odd = dataclasses.replace(found, user=Turn("\u3000<user>\u00a0\U000e0001", "\u200b"))
    written = go_template(odd)
    assert printable(written) == written
    assert '{{ "\\u3000<user>\\u00a0\\U000e0001" }}{{ .Content }}{{ "\\u200b" }}' in written
