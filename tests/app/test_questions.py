"""A user's own questions: read, asked and scored."""

import pytest
from scripted_model import saying, scripted_engine

from sprat.app.evaluate import evaluate
from sprat.app.questions import Question, read_questions
from sprat.errors import InputError


def written(tmp_path, *lines):
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("question", "reply", "right"),
    [
        (Question("q", "5"), " 5\n", True),
        (Question("q", "5"), "It is 5", False),
        (Question("q", ["4", "5"]), "5", True),
        (Question("q", "Red", match="contains"), "It is red.", True),
        (Question("q", "red", match="contains"), "It is blue.", False),
        (Question("q", r"\b0?9[:.]30\b", match="regex"), "At 9.30, I think.", True),
        (Question("q", r"^9:30$", match="regex"), "At 9:30", False),
    ],
)
def test_a_reply_is_right_as_its_question_says(question, reply, right):
    assert question.is_right(reply) is right


def test_the_score_counts_right_replies_by_kind(tmp_path):
    path = written(
        tmp_path,
        '{"prompt": "Say yes.", "answer": "yes", "kind": "words"}',
        "",
        '{"prompt": "Say no.", "answer": "no", "kind": "words", "system": "Be brief."}',
        '{"prompt": "Agree.", "answer": "YE", "match": "contains"}',
    )
    found = evaluate(scripted_engine(saying("yes")), file=path)
    assert (found.task, found.split, found.n) == ("questions.jsonl", "file", 3)
    assert found.exact_match == pytest.approx(2 / 3)
    assert found.kinds == {"": (1, 1), "words": (1, 2)}
    assert [(reply.reply, reply.right) for reply in found.replies] == [("yes", True), ("yes", False), ("yes", True)]
    assert evaluate(scripted_engine(saying("yes")), file=path, n=1).exact_match == 1.0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "has no question"),
        ('{"prompt": "a"', "line 1: .*expected such as"),
        ('{"prompt": "a"}', "line 1: .*missing required field `answer`"),
        ('{"prompt": "a", "answer": "b", "anwser": "c"}', "unknown field `anwser`"),
        ('{"prompt": " ", "answer": "b"}', "prompt is empty"),
        ('{"prompt": "a", "answer": []}', "answer is empty"),
        (
            '{"prompt": "a", "answer": "b", "match": "fuzzy"}',
            "match is 'fuzzy', expected one of exact",
        ),
        ('{"prompt": "a", "answer": "(", "match": "regex"}', "is not a regular expression"),
    ],
)
def test_a_line_that_is_no_question_is_refused_by_its_number(tmp_path, line, message):
    with pytest.raises(InputError, match=message):
        read_questions(written(tmp_path, line))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.jsonl: cannot be read"):
        read_questions(tmp_path / "absent.jsonl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected a task or a file"),
        ({"task": "home", "file": "q.jsonl"}, "expected a task or a file"),
        ({"file": "q.jsonl", "texts": [("q", "a")]}, "texts are for the task prose"),
        ({"task": "home", "max_tokens": 5}, "max_tokens is for a file"),
    ],
)
def test_a_task_and_a_file_exclude_each_other(options, message):
    with pytest.raises(InputError, match=message):
        evaluate(scripted_engine(saying("")), **options)
