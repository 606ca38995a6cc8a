"""``sprat run`` with answer formats, and ``sprat decide``."""

import json

import pytest
from command_line import run

SCHEMA = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}
QUICK = ("--temp", "0", "--max-thinking-tokens", "3")


def test_an_answer_matches_a_schema_in_a_file(capsys, tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA), encoding="utf-8")
    code, out, _ = run(capsys, "run", "demo", "lights on", "--json-schema", path, "--close-json", "-n", "60", *QUICK)
    assert (code, json.loads(out).keys()) == (0, {"on"})


@pytest.mark.parametrize(
    ("options", "answers"),
    [(("--choices", "yes,no"), {"yes", "no"}), (("--regex", "[7]{2}"), {"77"})],
)
def test_an_answer_is_one_of_these(capsys, options, answers):
    code, out, _ = run(capsys, "run", "demo", "Is it warm?", *options, *QUICK)
    assert (code, out.strip() in answers) == (0, True)


def test_an_answer_matches_a_grammar_in_a_file(capsys, tmp_path):
    path = tmp_path / "g.lark"
    path.write_text('start: "lamp " ("on" | "off")', encoding="utf-8")
    code, out, _ = run(capsys, "run", "demo", "x:", "--raw", "--grammar", path)
    assert (code, out.strip().partition(":")[2]) in {(0, "lamp on"), (0, "lamp off")}


def test_two_formats_exclude_each_other(capsys):
    code, _, err = run(capsys, "run", "demo", "x", "--regex", "a", "--choices", "a,b")
    assert (code, "--choices and --regex exclude each other" in err) == (2, True)


def test_a_schema_that_is_no_json_is_named(capsys, tmp_path):
    path = tmp_path / "schema.json"
    path.write_text("{", encoding="utf-8")
    code, _, err = run(capsys, "run", "demo", "x", "--json-schema", path)
    assert (code, "schema.json: found no JSON" in err) == (2, True)


def test_decide_prints_probabilities(capsys):
    code, out, err = run(capsys, "decide", "demo", "2 + 2 = ", "--raw", "--options", "4,5")
    rows = [line.split() for line in out.splitlines()]
    assert (code, {row[0] for row in rows}) == (0, {"4", "5"})
    assert sum(float(row[1].rstrip("%")) for row in rows) == pytest.approx(100, abs=0.02)
    assert "the model gives" in err


def test_decide_prints_json(capsys):
    arguments = ("lights off", "--system", "Decide.", "--options", "lamp,door", "--json")
    code, out, _ = run(capsys, "decide", "demo", *arguments)
    found = json.loads(out)
    assert (code, found.keys()) == (0, {"probabilities", "logprobs", "mass"})
    assert sum(found["probabilities"].values()) == pytest.approx(1)


def test_one_option_is_no_decision(capsys):
    code, _, err = run(capsys, "decide", "demo", "x", "--options", "a")
    assert (code, "at least 2 texts" in err) == (2, True)
