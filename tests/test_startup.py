"""Importing sprat, or asking it for help, loads none of the heavy libraries: start-up time matters on a Pi."""

import subprocess
import sys

import pytest
from tiny_engines import model_file

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


def test_import_sprat_loads_no_numpy_and_no_room():
    code = "import sys, sprat\nprint([name for name in sys.modules if name in {'numpy', 'click', 'msgspec'}])\n"
    code += "print([name for name in sys.modules if name.startswith('sprat.')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["[]", "['sprat.errors']"]


def test_a_loaded_model_waits_for_nothing_that_it_does_not_use():
    """Each takes 4 to 15 ms: planning for a device, recipes, isolation, NumPy's random numbers and masked arrays."""
    rare = ["sprat.devices.plan.choose", "sprat.quant.recipe", "sprat.runtime.isolation", "numpy.random", "numpy.ma"]
    code = f"import sys, sprat\nsprat.Engine\nprint([name for name in {rare} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["[]"]


def test_loading_a_model_imports_no_backend_that_does_not_run_it():
    rest = ["sprat.runtime.backends.llamacpp", "sprat.runtime.backends.onnx"]
    code = f"import sys, sprat\nsprat.Engine.load({str(model_file('deepseek2'))!r}, backend='reference').close()\n"
    code += f"print([name for name in sys.modules if name in {rest}])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["[]"]


def test_import_sprat_takes_less_than_20_ms():
    """CPU time of the fastest of ten processes: other programs on the machine can only add to it."""
    code = "import time\nbegan = time.process_time()\nimport sprat\nprint(1e3 * (time.process_time() - began))"
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(10)]
    assert min(float(run.stdout) for run in runs) < 20
