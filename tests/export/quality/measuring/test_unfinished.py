"""An interrupted measurement continues where it was, with the same result."""

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

from sprat.export.quality.measuring import unfinished as module
from sprat.export.quality.measuring.measure import measure
from sprat.export.quality.measuring.unfinished import Unfinished
from sprat.export.source.checkpoint import Checkpoint
from sprat.progress import no_progress
from sprat.quant.formats import get_format
from sprat.quant.round import Effort

SEQUENCES = [np.random.default_rng(seed).integers(4, 400, 24).astype(np.int32) for seed in range(3)]
FORMATS = [get_format(name) for name in ("Q4_0", "Q2_0", "Q8_0")]


class StoppedError(Exception):
    pass


def measured(source, file, progress=no_progress):
    return measure(
        source.spec,
        source,
        SEQUENCES,
        FORMATS,
        n_probes=2,
        effort=Effort(feedback=False),
        progress=progress,
        unfinished=Unfinished(file),
    )


@pytest.fixture(params=["deepseek2", "qwen2"])
def source(request, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SAVE_EVERY_S", -1.0)
    return Checkpoint.open(write_checkpoint(tmp_path / "source", request.param, num_hidden_layers=3))


def test_an_interrupted_measurement_continues(source, tmp_path):
    file, layers = tmp_path / "cache" / "unfinished.npz", []

    def interrupt(progress):
        if progress.done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        measured(source, file, interrupt)
    assert file.exists()
    again = measured(source, file, lambda progress: layers.append(progress.done))
    assert layers == [2, 3]
    assert not file.exists()
    whole = measured(source, tmp_path / "other.npz")
    assert (again.kld, again.errors, again.expert_tokens) == (whole.kld, whole.errors, whole.expert_tokens)
    assert np.array_equal(again.head_moments, whole.head_moments)
    assert all(np.array_equal(again.mean_squares[name], rows) for name, rows in whole.mean_squares.items())


def test_a_damaged_file_is_measured_again(source, tmp_path):
    file = tmp_path / "unfinished.npz"
    file.write_bytes(b"not a file of arrays")
    layers = []
    measured(source, file, lambda progress: layers.append(progress.done))
    assert layers == [0, 1, 2, 3]
