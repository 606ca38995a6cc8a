"""Float32 graphs of every architecture, in onnxruntime, against transformers' own logits (tests/golden)."""

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

from golden_models import GOLDEN, NAMES
from onnx_models import Runner, write

from sprat.export.source.checkpoint import Checkpoint

TOLERANCE = 1e-4  # of the largest logit
ENDS = {"one pass": (), "chunks": (1, 8, 9, 41), "token by token": tuple(range(1, 80))}


@pytest.fixture(scope="module", params=[(name, portable) for name in NAMES for portable in (False, True)], ids=str)
def golden(request, tmp_path_factory):
    """A session, tokens, and transformers' logits."""
    name, portable = request.param
    checkpoint = Checkpoint.open(GOLDEN / name)
    folder = write(tmp_path_factory.mktemp(name) / "out", checkpoint, portable=portable)
    expected = load_file(GOLDEN / name / "expected.safetensors")
    return Runner(folder, checkpoint.spec), expected["tokens"], expected["logits"]


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
def test_logits_match_transformers(golden, ends):
    run, tokens, expected = golden
    assert np.abs(run.in_chunks(tokens, *ends) - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("n_logits", [1, 3])
def test_logits_of_the_last_tokens_equal_those_of_all_tokens(golden, n_logits):
    run, tokens, expected = golden
    run.reset()
    last = run([tokens], n_logits=np.array([n_logits]))[0]
    assert last.shape == (n_logits, expected.shape[1])
    assert np.abs(last - expected[-n_logits:]).max() <= TOLERANCE * np.abs(expected).max()
