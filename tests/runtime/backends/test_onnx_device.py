"""A KV cache that stays in a provider's memory, here the CPU's: the logits are those of a cache in sprat's arrays."""

from types import SimpleNamespace

import numpy as np
import pytest
from tiny_checkpoint import CONFIGS, write_checkpoint

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

from sprat.errors import BackendError, InputError, PromptError
from sprat.export.pipeline import export
from sprat.runtime.backends.library_guard import LibraryGuard
from sprat.runtime.backends.onnx import ONNXStream
from sprat.runtime.backends.onnx import backend as onnx_backend
from sprat.runtime.backends.onnx.device_cache import DeviceMemory
from sprat.runtime.backends.onnx.session import open_session
from sprat.runtime.backends.providers.names import CPU
from sprat.runtime.engine import Engine
from sprat.runtime.files.onnx.file import ONNXFile
from sprat.runtime.loading.options import LoadOptions

TOKENS = [0, *(int(token) for token in np.random.default_rng(2).integers(2, 512, 40))]
HERE = SimpleNamespace(name="here", memory="cpu", session_providers=lambda: [CPU])


@pytest.fixture(scope="module", params=[(name, portable) for name in CONFIGS for portable in (False, True)], ids=str)
def model(request, tmp_path_factory):
    """A model of each kind of cache."""
    name, portable = request.param
    folder = tmp_path_factory.mktemp("device")
    source = write_checkpoint(folder / "tiny", name)
    bundle = export(source, folder / "out", quant="f32", formats=["onnx"], portable=portable).bundle
    return ONNXFile.open(bundle.artifact("onnx"))


@pytest.fixture
def streams(model):
    """Two empty sequences of one session: with sprat's cache, and with one on the device."""
    session, guard = open_session(model.path, n_threads=1), LibraryGuard("onnxruntime", model.files())
    device = DeviceMemory(model, HERE)
    return [ONNXStream(session, model, 64, guard, chunk=16, device=where) for where in (None, device)]


def test_prompts_and_single_tokens_have_the_same_logits(streams):
    expected, found = ([stream.forward_all(TOKENS), stream.forward([7]), stream.forward([9])] for stream in streams)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_truncated_tokens_are_forgotten(streams):
    results = []
    for stream in streams:
        stream.forward(TOKENS)
        stream.truncate(20)
        again = stream.forward([3, 4])
        stream.truncate(0)
        results.append((again, stream.forward(TOKENS[:5]), stream.length))
    (again, first, length), (again_there, first_there, length_there) = results
    np.testing.assert_allclose(again, again_there, atol=1e-5)
    np.testing.assert_allclose(first, first_there, atol=1e-5)
    assert length == length_there == 5


def test_a_cache_on_a_device_gives_no_entries_and_has_a_capacity(streams):
    _, there = streams
    assert there.cache is None
    there.forward(TOKENS)
    with pytest.raises(PromptError, match="the cache holds 41 of 64 tokens and 24 more"):
        there.forward(range(24))


def test_a_run_that_fails_says_so_and_leaves_the_cache(streams, monkeypatch):
    _, there = streams
    expected = there.forward(TOKENS[:5])
    there.truncate(4)

    def fail(*_):
        raise RuntimeError("device lost")

    with monkeypatch.context() as failing:
        failing.setattr(onnx_backend, "run_session", fail)
        with pytest.raises(BackendError, match=r"failed at position 4 \(device lost\); leave the provider out"):
            there.forward(TOKENS[4:5])
    np.testing.assert_allclose(there.forward(TOKENS[4:5]), expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"isolate": True}, {"gpu": "auto"}, {"backend": "native"}])
def test_a_provider_is_the_onnx_backends_in_this_process(options):
    with pytest.raises(InputError, match=r"provider is 'webgpu' with .*; drop one of the two"):
        LoadOptions(provider="webgpu", **options)


def test_options_without_a_provider_are_an_error():
    with pytest.raises(InputError, match="without a provider"):
        LoadOptions(provider_options={"device_id": "1"})


def test_a_provider_that_is_not_installed_is_an_error_with_the_line(model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(BackendError, match=r"has no DmlExecutionProvider, only .*; pip install .*onnxruntime-directml"):
        Engine.load(model.path, provider="directml")
