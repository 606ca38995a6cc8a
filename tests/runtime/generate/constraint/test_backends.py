"""The same answers are bound, and the same decisions made, on every backend."""

import json

import pytest

import sprat

QUESTION = [{"role": "user", "content": "What is 17 + 25?"}]
SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["sum"],
}
BOUND = {"response_format": {"type": "json_schema", "schema": SCHEMA}, "close_json": True, "max_tokens": 80}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The packaged student as GGUF and ONNX."""
    pytest.importorskip("onnx_ir")
    out = tmp_path_factory.mktemp("backends") / "out"
    sprat.export("demo", out, quant="int8", formats=["gguf", "onnx"])
    return out


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["native", "reference", "llamacpp", "onnx"])
def test_every_backend_binds_answers_and_decides_alike(bundle, backend):
    if backend == "llamacpp":
        pytest.importorskip("llama_cpp")
    options = {"chat_template_kwargs": {"enable_thinking": False}}
    with sprat.load("demo") as student:
        expected = student.decide(QUESTION, ["42", "43", "7"], **options)
    with sprat.load(bundle, backend=backend) as engine:
        reply = engine.chat(QUESTION, temperature=0, **BOUND)["choices"][0]
        assert reply["finish_reason"] == "stop"
        assert 0 <= json.loads(reply["message"]["content"])["sum"] <= 99
        found = engine.decide(QUESTION, ["42", "43", "7"], **options)
    assert found.logprobs == pytest.approx(expected.logprobs, abs=0.5)  # int8 weights
    assert found.best == expected.best
