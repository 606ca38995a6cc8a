"""llama.cpp on a Vulkan device against the native backend, split in the ways that a placement can choose.

Runs where ``SPRAT_TEST_VULKAN`` names a folder with a ``libllama.so`` built for Vulkan (docs/gpu.md: a prebuilt one and
Mesa's software driver do). The software driver compiles its shaders on first use: minutes on two cores.
"""

import json
import os
import subprocess
import sys

import pytest
from tiny_checkpoint import write_checkpoint

from sprat.devices.plan.placement import Placement
from sprat.export.pipeline import export

LIBRARY = os.environ.get("SPRAT_TEST_VULKAN", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LIBRARY, reason="SPRAT_TEST_VULKAN names no llama.cpp for Vulkan"),
]
N_LAYERS = 4
SPLITS = {
    "whole": Placement(n_layers=N_LAYERS, layers=N_LAYERS, head=True),
    "head only": Placement(n_layers=N_LAYERS, head=True),
    "two layers": Placement(n_layers=N_LAYERS, layers=2, head=True),
    "experts in memory": Placement(n_layers=N_LAYERS, layers=N_LAYERS, head=True, experts_in_memory=(1, 2, 3)),
    "some experts in memory": Placement(n_layers=N_LAYERS, layers=3, head=True, experts_in_memory=(2,)),
}
CHILD = """
import json, sys
import numpy as np
import msgspec
from sprat.devices.plan.placement import Placement
from sprat.quant.quality import QualityMeter
from sprat.runtime.engine import Engine

path, text = sys.argv[1], "The quick brown fox jumps over the lazy dog, and the dog sleeps on."
def greedy(engine):
    return [piece.token_id for piece in engine.generate(text, max_tokens=8, temperature=0)]
with Engine.load(path, backend="native", exact=True) as engine:
    tokens = engine.encode(text)
    base, expected = engine.backend.new_stream(64).forward_all(tokens), greedy(engine)
for name, split in json.loads(sys.argv[2]).items():
    with Engine.load(path, backend="llamacpp", gpu=msgspec.convert(split, Placement), context=64) as engine:
        meter = QualityMeter()
        meter.add(base, engine.backend.new_stream(64).forward_all(tokens), np.asarray(tokens))
        kld = float(meter.result().kld.value)
        print(json.dumps([name, engine.backend_choice.text(), kld, greedy(engine) == expected]))
"""


def test_every_split_gives_the_logits_and_the_answer_of_the_native_backend(tmp_path):
    pytest.importorskip("llama_cpp")
    source = write_checkpoint(tmp_path / "tiny", "deepseek2")
    artifact = export(source, tmp_path / "out", quant="f32").bundle.artifact()
    splits = json.dumps(
        {name: {field: getattr(split, field) for field in split.__slots__} for name, split in SPLITS.items()}
    )
    environment = os.environ | {"LLAMA_CPP_LIB_PATH": LIBRARY, "GGML_VK_VISIBLE_DEVICES": "0"}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(artifact), splits],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    found = [json.loads(line) for line in child.stdout.splitlines()]
    assert [name for name, *_ in found] == list(SPLITS)
    for name, place, kld, same in found:
        assert "llamacpp on Vulkan" in place, name
        assert kld < 1e-3, name  # f16 products and cache
        assert same, name
