"""Embeddings: the mean of the last hidden states, as transformers computes them."""

import numpy as np
import pytest
from scripted_model import random_logits, scripted_engine
from tiny_checkpoint import write_checkpoint

import sprat
from sprat.errors import BackendError, PromptError

TEXTS = ["The quick brown fox", "A device at the edge needs patience."]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("embedding") / "tiny", "deepseek2")


def test_vectors_have_length_one_and_several_texts_are_rows(source):
    with sprat.load(source) as engine:
        rows, one = engine.embed(TEXTS), engine.embed(TEXTS[0])
        assert (rows.shape, rows.dtype, one.shape) == ((2, 64), np.float32, (64,))
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(rows[0], one)
        raw = engine.embed(TEXTS[0], normalize=False)
        np.testing.assert_allclose(raw / np.linalg.norm(raw), one, rtol=1e-5)


@pytest.mark.parametrize("batch", [3, 512])
def test_the_batch_does_not_matter(source, batch):
    with sprat.load(source) as engine:
        expected = engine.embed(TEXTS[1])
        object.__setattr__(engine.frontend, "batch", batch)
        np.testing.assert_allclose(engine.embed(TEXTS[1]), expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_transformers_gives_the_same_mean(tmp_path, architecture):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers", minversion="5.0")
    folder = write_checkpoint(tmp_path / "tiny", architecture)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with sprat.load(folder) as engine:
        found, tokens = engine.embed(TEXTS[0], normalize=False), engine.encode(TEXTS[0])
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).last_hidden_state[0].mean(0).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_a_backend_without_hidden_states_is_an_error():
    engine = scripted_engine(random_logits)
    with pytest.raises(BackendError, match="computes logits only"):
        engine.embed("x")
    assert engine.backend.streams[0].closed


@pytest.mark.parametrize("texts", [[], [5], 5, None, ["a", None]])
def test_what_is_no_text_is_an_error(texts):
    with pytest.raises(PromptError, match="expected a text or a list"):
        scripted_engine(random_logits).embed(texts)


def test_a_text_longer_than_the_context_is_an_error():
    with pytest.raises(PromptError, match="the context holds 8"):
        scripted_engine(random_logits, context=8).embed("0123456789")


def test_damaged_weights_are_an_error(source):
    with sprat.load(source) as engine:
        head = engine.backend._streams._model._head
        head.norm[0] = np.nan
        with pytest.raises(BackendError, match="NaN or infinite"):
            engine.embed("x")
