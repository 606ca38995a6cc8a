"""``sprat eval`` on a model with random weights: every task runs, and no answer is right."""

import json

import pytest
from tiny_checkpoint import write_checkpoint

from sprat.cli import main
from sprat.demo.tasks import prose


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("source") / "tiny-moe", "deepseek2")


def evaluated(capsys, source, *options):
    main(["eval", str(source), "--n", "2", *options])
    return capsys.readouterr().out


@pytest.mark.parametrize("task", ["arithmetic", "home"])
def test_json_has_the_documented_keys(source, capsys, task):
    record = json.loads(evaluated(capsys, source, "--task", task, "--json"))
    assert {"task", "n", "exact_match", "interval"} <= set(record)
    assert record["task"] == task
    assert record["n"] == 2
    assert record["exact_match"] == 0.0
    assert record["interval"] == [0.0, pytest.approx(0.6576, abs=1e-3)]


def test_the_score_comes_first_and_the_next_command_last(source, capsys):
    lines = evaluated(capsys, source, "--task", "home", "--split", "unseen").splitlines()
    assert lines[0].startswith("home: 0.0% exactly right of 2")
    assert lines[-1].startswith("next:  sprat")


def test_prose_is_scored_by_tokens_and_perplexity(source, capsys, tmp_path, monkeypatch):
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"prompt": "Tell me about rain.", "answer": "Rain falls. It is wet."}\n')
    monkeypatch.setattr(prose, "HELD_OUT_FILE", texts)
    record = json.loads(evaluated(capsys, source, "--task", "prose", "--json"))
    assert record["n"] > 5  # tokens, not texts
    assert record["perplexity"] > 50  # a random model: near the size of its vocabulary, 512


def test_wrong_replies_to_own_questions_are_shown(source, capsys, tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"prompt": "What is 2 + 3?", "answer": "5"}\n' * 7)
    main(["eval", str(source), "--file", str(questions), "--max-tokens", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("questions.jsonl: 0.0% right of 7")
    assert sum(line.startswith("wrong: 'What is 2 + 3?'") for line in lines) == 5
    assert lines[-2].startswith("… and 2 more")


def test_eval_takes_a_task_or_a_file(source, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["eval", str(source)])
    assert stop.value.code == 2
    assert "give either --task or --file" in capsys.readouterr().err
