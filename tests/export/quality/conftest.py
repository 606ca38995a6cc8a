"""Small models and short texts for calibrated exports."""

import pytest
from tiny_checkpoint import write_checkpoint

from sprat.export.texts import calibration_text, evaluation_text

SMALL = {
    "deepseek2": {"num_hidden_layers": 2, "n_routed_experts": 4, "num_experts_per_tok": 2},
    "qwen2": {"num_hidden_layers": 2},
}


@pytest.fixture
def short_texts(tmp_path, monkeypatch):
    """A cache of the test's own, and texts that are not long for tokens of a letter or two."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("sprat.export.calibration.evaluation_text", lambda: evaluation_text()[:1500])


@pytest.fixture(params=["deepseek2", pytest.param("qwen2", marks=pytest.mark.slow)])
def source(request, tmp_path):
    """A checkpoint with experts, and one without."""
    return write_checkpoint(tmp_path / "source", request.param, **SMALL[request.param])


@pytest.fixture
def text_file(tmp_path):
    """A text to calibrate with."""
    file = tmp_path / "text.txt"
    file.write_text(calibration_text()[:2500])
    return file
