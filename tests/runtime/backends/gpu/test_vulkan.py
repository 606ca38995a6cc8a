"""llama.cpp on a Vulkan device against the native backend, split in every way that a placement can choose."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import every_split
import msgspec
import pytest
import vulkan
from tiny_checkpoint import write_checkpoint

from sprat.app.demo_bundle import demo_gguf
from sprat.devices.plan.context_settings import ContextSettings
from sprat.devices.plan.placement import Placement
from sprat.export.pipeline import export

pytest.importorskip("llama_cpp")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not vulkan.is_installed(), reason="make .venv/.vulkan, apt install mesa-vulkan-drivers"),
]


DEFAULTS = ContextSettings()


def compared(path, cases):
    """``(KLD, preference)`` of each case, a placement and settings: see ``every_split``; 0 is the same answer."""
    command = [sys.executable, every_split.__file__, str(path), msgspec.json.encode(cases).decode()]
    child = subprocess.run(command, capture_output=True, text=True, env=vulkan.environment(), check=False)
    assert child.returncode == 0, child.stderr
    found = [json.loads(line) for line in child.stdout.splitlines()]
    assert [index for index, *_ in found] == list(range(len(cases)))
    return [tuple(values) for _, *values in found]


def placed(path, placements):
    """Each placement with what :func:`compared` finds for it."""
    return zip(placements, compared(path, [(placement, DEFAULTS) for placement in placements]), strict=True)


@pytest.fixture(scope="module")
def v2_lite(tmp_path_factory):
    """DeepSeek-V2-Lite's shape, small: four layers, the first of them dense, in float32."""
    folder = tmp_path_factory.mktemp("vulkan")
    source = write_checkpoint(folder / "tiny", "deepseek2")
    return export(source, folder / "out", quant="f32").bundle.artifact()


def test_every_placement_of_a_moe_model_has_the_logits_and_the_answer_of_the_native_backend(v2_lite):
    placements = list(every_split.every_placement(4, (1, 2, 3)))
    assert len(placements) == 23
    for placement, (kld, preferred) in placed(v2_lite, placements):
        assert kld < 1e-3, placement  # f16 products and cache
        assert preferred == 0, placement


def test_the_student_has_the_same_answer_on_the_gpu():
    placements = list(every_split.every_placement(5, ()))
    for placement, (kld, preferred) in placed(demo_gguf("int8"), placements):
        assert kld < 2e-3, placement
        assert preferred == 0, placement


SETTINGS = {  # -> the largest KLD: f16's is the test's above, llama.cpp's own roundings of a cache come on top
    ContextSettings(flash_attention=False): 2e-3,
    ContextSettings(flash_attention=True, batch=8): 2e-3,
    ContextSettings(cache="f32", flash_attention=True): 2e-3,
    ContextSettings(cache="int8", flash_attention=True): 2e-3,
    ContextSettings(cache="int4", flash_attention=True): 0.05,
}


def test_the_student_has_the_same_answer_with_every_cache_and_attention():
    placements = itertools.cycle(Placement(n_layers=5, layers=layers, head=True) for layers in (5, 2))
    cases = list(zip(placements, SETTINGS, strict=False))  # in turns: a case compiles its shaders anew
    for (placement, settings), (kld, preferred) in zip(cases, compared(demo_gguf("int8"), cases), strict=True):
        assert kld < SETTINGS[settings], (placement, settings)
        assert preferred == 0 or settings.cache == "int4", (placement, settings)


def test_smollm2_has_the_same_answer_on_the_gpu(smollm2_gguf):
    placement = Placement(n_layers=30, layers=15, head=True)  # one of all: the software driver takes a minute
    [(kld, preferred)] = compared(smollm2_gguf, [(placement, DEFAULTS)])
    assert kld < 0.02  # products of Q4_1 with int8 activations, as llama.cpp computes on the CPU, too
    assert preferred < 0.1  # on AVX2 two tokens that are 0.05 apart change places


def sprat(*arguments, **variables):
    command = [sys.executable, "-m", "sprat", *map(str, arguments)]
    environment = vulkan.environment() | variables
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_auto_computes_on_the_gpu_and_says_where(tmp_path):
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    command = ("run", demo_gguf("int8"), "What is 12 + 5?", "-n", 8, "--temp", 0)
    found, expected = sprat(*command, "--gpu", "auto", **cache), sprat(*command)
    assert found.stdout == expected.stdout
    assert "llamacpp on Vulkan0 (llvmpipe" in found.stderr
    verified = sprat("verify", demo_gguf("int8"), "--source", "demo", "--gpu", "auto", "--max-tokens", 32,
                     "--max-kld", 0.05, **cache)  # fmt: skip
    assert verified.stdout.startswith("PASSED"), verified.stderr


KILLED = """
import os, signal, sys
from sprat import BackendDiedError, Engine
with Engine.load(sys.argv[1], gpu="auto") as engine:
    assert engine.backend_choice.gpu, engine.backend_choice.text()
    answer = engine.generate("What is 12 + 5?", temperature=0)
    next(answer)
    os.kill(engine.backend.process_id, signal.SIGKILL)
    try:
        list(answer)
    except BackendDiedError as error:
        print(error)
"""


def test_a_driver_that_dies_while_it_computes_is_an_error_here(tmp_path):
    environment = vulkan.environment() | {"XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", KILLED, str(demo_gguf("int8"))]
    child = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert re.search(r"the process that computes on Vulkan0 ended \(SIGKILL.*use gpu='off'", child.stdout), child.stderr


def test_without_the_driver_on_is_one_error_and_auto_the_cpu_with_the_reason(tmp_path):
    nothing = {"VK_ICD_FILENAMES": "/nonsense.json", "XDG_CACHE_HOME": str(tmp_path)}
    refused = sprat("run", demo_gguf("int8"), "hi", "--gpu", "on", "-n", 1, **nothing)
    assert re.match(r"sprat: this llama-cpp-python finds no GPU", refused.stderr)
    assert not refused.stdout
    on_cpu = sprat("run", demo_gguf("int8"), "hi", "--gpu", "auto", "-n", 1, "--backend", "llamacpp", **nothing)
    assert on_cpu.returncode == 0
    assert "llamacpp on the CPU; no GPU (this llama-cpp-python finds no GPU" in on_cpu.stderr


def test_doctor_lists_the_gpu_and_what_goes_there():
    found = sprat("doctor", Path(demo_gguf("int8")))
    assert "GPU Vulkan0" in found.stdout
    assert "5 of 5 layers and the head on the card" in " ".join(found.stdout.split())
