"""Packed training rows: every target is the next token of the same document."""

import pytest

from sprat import demo
from sprat.demo.tasks import Split, arithmetic, prose

torch = pytest.importorskip("torch")
F = pytest.importorskip("torch.nn.functional")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def batches():
    from batches import BatchMaker
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(demo.path() / "tokenizer.json"))
    return BatchMaker(tokenizer, prose.held_out_texts())


def test_a_step_always_has_the_same_batch(batches):
    first, again = batches(7), batches(7)
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.tokens, batches(8).tokens)


def test_every_token_has_the_next_one_of_its_document_as_target(batches):
    from batches import NO_TARGET

    batch = batches(0)
    inside = _inside(batch)
    assert torch.equal(batch.targets[:, :-1][inside], batch.tokens[:, 1:][inside])
    assert torch.equal(batch.targets != NO_TARGET, batch.documents >= 0)
    assert (batch.positions[:, 1:] == batch.positions[:, :-1] + 1)[inside].all()


def test_an_answer_ends_with_its_document(batches):
    batch = batches(0)
    answer = batch.tasks >= 0
    ends = (batch.documents >= 0) & ~F.pad(_inside(batch), (0, 1))
    assert answer[ends].all()
    assert answer[:, 1:][_inside(batch) & answer[:, :-1]].all()
    assert set(batch.tasks.unique().tolist()) == {-1, 0, 1, 2}


def test_a_document_is_the_prompt_and_then_the_answer(batches):
    from vocabulary import chat_prompt, completion

    problem = next(arithmetic.problems(Split.TRAIN))
    document = batches.encode(problem, 0)
    halves = document.tokens[: document.answer_at], document.tokens[document.answer_at :]
    expected = chat_prompt(problem.prompt), completion(problem.reasoning, problem.answer)
    assert tuple(batches.tokenizer.decode(half, skip_special_tokens=False) for half in halves) == expected


def _inside(batch):
    """(rows, n - 1): whether the next token belongs to the same document."""
    return (batch.documents[:, 1:] == batch.documents[:, :-1]) & (batch.documents[:, 1:] >= 0)
