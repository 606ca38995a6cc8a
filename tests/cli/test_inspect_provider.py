"""--provider of inspect and other commands, with providers that are not run."""

import json

import pytest
from command_line import run
from tiny_checkpoint import write_checkpoint

from sprat.cli import main
from sprat.export import inspection
from sprat.runtime.backends.providers.placement import FallbackNodes, ProviderUse


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    pytest.importorskip("onnx_ir")
    folder = tmp_path_factory.mktemp("provider")
    source = write_checkpoint(folder / "tiny", "qwen2")
    main(["export", str(source), str(folder / "out"), "--quant", "f32", "--format", "gguf,onnx"])
    return folder / "out"


@pytest.fixture
def webgpu(monkeypatch):
    """The models that were run with a provider; ``problem`` and errors are those of the last call."""
    models, result = [], {"prompt_error": 0.25, "decode_error": 1e-4, "problem": "", "version": "1.27.0"}

    def use(model, provider):
        models.append((model.name, provider.name))
        nodes = (FallbackNodes("Shape", "blk.*/Shape", 12),)
        numbers = {"n_nodes": 50, "n_fallback_nodes": 12, "fallback": nodes}
        return ProviderUse(provider=provider.name, **numbers, **result)

    monkeypatch.setattr(inspection, "provider_use", use)
    return models, result


def test_the_onnx_model_of_a_bundle_is_run_and_its_fallback_printed(bundle, webgpu, capsys):
    code, out, _ = run(capsys, "inspect", bundle, "--provider", "webgpu")
    assert code == 0
    assert webgpu[0] == [("model.onnx", "webgpu")]
    assert "webgpu (onnxruntime 1.27.0) computes 50 nodes, the CPU 12:" in out
    assert "blk.*/Shape" in out
    assert "logits differ from the CPU's by 2.5e-01 of the largest in a prompt, 1.0e-04 token by token" in out


def test_a_run_that_fails_is_printed(bundle, webgpu, capsys):
    webgpu[1].update(prompt_error=None, decode_error=None, problem="SIGSEGV: device lost", version="")
    _, out, _ = run(capsys, "inspect", bundle / "model.onnx", "--provider", "webgpu")
    assert "\nwebgpu computes 50 nodes" in out
    assert "fails: SIGSEGV: device lost" in out


def test_the_provider_is_in_json(bundle, webgpu, capsys):
    _, out, _ = run(capsys, "inspect", bundle, "--provider", "webgpu", "--json")
    found = json.loads(out)["provider"]
    assert (found["n_fallback_nodes"], found["fallback"][0]["operator"]) == (12, "Shape")


def test_a_provider_needs_an_onnx_model(bundle, webgpu, capsys):
    [gguf] = bundle.glob("*.gguf")
    code, _, error = run(capsys, "inspect", gguf, "--provider", "webgpu")
    assert code == 2
    assert "a provider needs an ONNX model" in error
    assert not webgpu[0]


def test_options_of_a_provider_are_names_and_values(bundle, capsys):
    command = ("run", bundle, "hi", "--provider", "webgpu", "--provider-option")
    code, _, error = run(capsys, *command, "powerPreference")
    assert code == 2
    assert "expected NAME=VALUE" in error
    code, _, error = run(capsys, *command, "powerpreference=low-power")
    assert code == 2
    assert "did you mean 'powerPreference'" in error
    assert run(capsys, "run", bundle, "hi", "--provider-option", "device_id=1")[0] == 2


def test_verify_and_bench_take_a_provider(bundle, capsys):
    for command in (("verify", bundle, "--source", bundle.parent / "tiny"), ("bench", bundle, "-n", "0", "-p", "8")):
        _, _, error = run(capsys, *command, "--provider", "metal")
        assert "unknown provider 'metal'" in error
