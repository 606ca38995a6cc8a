"""Importing sprat, or asking it for help, loads none of the heavy libraries: start-up time matters on a Pi."""

import subprocess
import sys

import pytest

HEAVY = ["onnx", "onnxruntime", "llama_cpp", "torch", "matplotlib", "tokenizers", "transformers"]


@pytest.mark.parametrize(
    "statement",
    ["import sprat", "from sprat.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"],
    ids=["import", "help"],
)
def test_nothing_heavy_is_loaded(statement):
    code = f"import sys\n{statement}\nprint('loaded:', [name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "loaded: []"
