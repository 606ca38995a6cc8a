"""``verify`` on a GPU; without one, ``auto`` computes on the CPU and says why."""

import pytest
from tiny_checkpoint import write_checkpoint

from sprat.errors import BackendError
from sprat.export.pipeline import export
from sprat.export.verify.verify import verify
from sprat.runtime.backends.gpu import place

TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 4


def test_auto_without_a_gpu_measures_the_cpu_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(place, "find_gpus", lambda _shape: [])
    source = write_checkpoint(tmp_path / "tiny", "deepseek2")
    bundle = export(source, tmp_path / "out", quant="int8").path
    found = verify(bundle, source, gpu="auto", text=TEXT, max_tokens=40)
    (name,) = found.quality
    assert f"backend {name} on the CPU; no GPU (" in found.text()
    with pytest.raises(BackendError, match="llama-cpp-python"):
        verify(bundle, source, gpu="on", text=TEXT, max_tokens=40)
