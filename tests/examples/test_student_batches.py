"""Packed training rows: every target is the token after the one that foretells it, within its own document."""

from pathlib import Path

import pytest

from sprat import demo
from sprat.demo.tasks import prose

torch = pytest.importorskip("torch")
RECIPE = Path(__file__).parents[2] / "examples" / "train_student"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def batches():
    from tokenizers import Tokenizer

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(RECIPE)
        from batches import BatchMaker
    tokenizer = Tokenizer.from_file(str(demo.path() / "tokenizer.json"))
    return BatchMaker(tokenizer, prose.held_out_texts())


def test_a_step_always_gives_the_same_batch(batches):
    first, again = batches(7), batches(7)
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.tokens, batches(8).tokens)


def test_every_target_follows_its_token_within_one_document(batches):
    batch = batches(0)
    learnt = batch.tasks >= 0
    wanted, targets = batch.wanted[learnt], batch.targets[learnt]
    tokens, documents, positions = batch.tokens.flatten(), batch.documents.flatten(), batch.positions.flatten()
    inside = (wanted + 1 < len(tokens)) & (documents[wanted] == documents.roll(-1)[wanted])
    inside &= positions.roll(-1)[wanted] == positions[wanted] + 1
    assert torch.equal(tokens[wanted[inside] + 1], targets[inside])
    assert (~inside).sum() == sum(len(row.unique()) - int((row < 0).any()) for row in batch.documents)
    assert set(batch.tasks.tolist()) == {-1, 0, 1, 2}
