"""A GPU that fails while a placement is tried is an error, or with ``auto`` the CPU and the reason; real children."""

import os
import re
import sys

import lost_card
import pytest
from tiny_checkpoint import write_checkpoint

from sprat.errors import BackendDiedError, BackendError
from sprat.export.pipeline import export
from sprat.runtime.backends.gpu import place
from sprat.runtime.backends.gpu.find import GPUDevice
from sprat.runtime.backends.registry import LoadRequest, choose
from sprat.runtime.engine import Engine
from sprat.runtime.gpu_option import GPUOption
from sprat.runtime.open_model import open_model

CARD = GPUDevice(name="Vulkan0", description="a card", integrated=False, free_bytes=4 << 30, total_bytes=4 << 30)
ENDS = {  # what the child's llama_cpp does -> what the error says
    "print('vk::DeviceLostError', file=sys.stderr, flush=True)\nos.abort()": "SIGABRT: vk::DeviceLostError",
    "os.kill(os.getpid(), 9)": "SIGKILL",
    "os.kill(os.getpid(), 11)": "SIGSEGV",
    "sys.exit('ErrorOutOfDeviceMemory: the card is full')": "ErrorOutOfDeviceMemory: the card is full",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lost")
    return open_model(
        export(write_checkpoint(folder / "tiny", "llama"), folder / "out", quant="int8").bundle.artifact()
    )


@pytest.fixture(params=ENDS, ids=ENDS.values())
def ending(request, tmp_path, monkeypatch):
    """What ends the child."""
    (tmp_path / "llama_cpp.py").write_text(f"import os, sys\n{request.param}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "0.3.36")
    monkeypatch.setattr(place, "find_gpus", lambda _shape: [CARD])
    return ENDS[request.param]


def asked(model, gpu):
    return LoadRequest(file=model.file, spec=model.spec, context=64, n_threads=1, gpu=GPUOption.of(gpu))


def test_on_is_an_error_every_time(model, ending):
    for _ in range(2):  # a failure is not remembered
        with pytest.raises(BackendError) as failed:
            choose("llamacpp", asked(model, "on"))
        assert ending in str(failed.value)
        if ending.startswith("SIG"):
            assert "on Vulkan0 (a card): 4 of 4 layers" in str(failed.value)
            assert "update the driver" in str(failed.value)


def test_auto_is_the_cpu_and_says_why(model, ending):
    choice = choose("llamacpp", asked(model, "auto"))
    assert (choice.name, choice.gpu) == ("llamacpp", None)
    assert ending in choice.no_gpu_because
    assert choice.text().startswith("llamacpp on the CPU; no GPU (")


@pytest.fixture
def vanishing(model, tmp_path, monkeypatch):
    """A llama.cpp whose card vanishes in the third pass."""
    lost_card.write(tmp_path, model.spec)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "0.3.36")
    monkeypatch.setattr(place, "find_gpus", lambda _shape: [CARD])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the driver is in this process")
def test_a_card_that_vanishes_in_the_middle_of_a_token_is_an_error(model, vanishing):
    with Engine.load(model.file.path, gpu="on", context=64) as engine:
        assert engine.backend_choice.gpu.device == "Vulkan0"
        with pytest.raises(BackendDiedError) as died:
            engine.generate([1, 2], min_tokens=8).text()
        assert re.search(
            r"the process that computes on Vulkan0 ended \(SIGABRT: what\(\):  vk::Queue::submit: ErrorDeviceLost\); "
            r"check the device and its driver and load the model again, or use gpu='off'$",
            str(died.value),
        )
        with pytest.raises(BackendDiedError, match="ErrorDeviceLost"):  # and so does every later call
            engine.generate([1, 2]).text()
    with Engine.load(model.file.path, gpu="on", context=64) as again:
        assert next(again.generate([1, 2])) is not None
