"""The script that writes the golden logits of the packaged student gives those of the committed file."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def test_golden_logits_are_those_of_the_committed_file(tmp_path, monkeypatch):
    import golden

    committed = golden.TARGET
    monkeypatch.setattr(golden, "TARGET", Path(tmp_path / "golden.npz"))
    golden.main()
    with np.load(committed) as expected, np.load(golden.TARGET) as found:
        assert found.files == expected.files
        for name in expected.files:
            if name.startswith("logits"):
                np.testing.assert_allclose(found[name], expected[name], atol=2e-4, rtol=0)
            elif name.startswith(("prompt", "tokens")):
                np.testing.assert_array_equal(found[name], expected[name])
