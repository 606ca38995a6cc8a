"""ONNX models in the engine: logits, caches and answers are those of the NumPy reference."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tiny_checkpoint import CONFIGS, write_checkpoint

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from sprat.errors import (  # noqa: E402
    BackendError,
    BundleError,
    ConfigError,
    DoesNotFitError,
    ModelFileError,
    PromptError,
    TokenizerError,
)
from sprat.export.inspection import inspect  # noqa: E402
from sprat.export.pipeline import export  # noqa: E402
from sprat.export.verify.verify import verify  # noqa: E402
from sprat.runtime.backends.library_guard import LibraryGuard  # noqa: E402
from sprat.runtime.backends.onnx import backend as onnx_backend  # noqa: E402
from sprat.runtime.backends.registry import LoadRequest, choose, chosen_footprint, open_backend  # noqa: E402
from sprat.runtime.engine import Engine  # noqa: E402
from sprat.runtime.files.onnx.file import ONNXFile  # noqa: E402
from sprat.runtime.open_model import open_model  # noqa: E402

# of seed 1, a token's third and fourth expert are 4e-8 apart: rounding decides
TOKENS = [0, *(int(token) for token in np.random.default_rng(2).integers(2, 512, 40))]
FORMS = [*((name, False) for name in CONFIGS), *((name, True) for name in CONFIGS)]


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: f"{form[0]}-{'portable' if form[1] else 'contrib'}")
def bundle(request, tmp_path_factory):
    """A bundle with the same float32 weights as GGUF and as ONNX, for every kind of cache."""
    name, portable = request.param
    folder = tmp_path_factory.mktemp("onnx")
    source = write_checkpoint(folder / f"tiny-{name}", name)
    return export(source, folder / "out", quant="f32", formats=["gguf", "onnx"], portable=portable).bundle


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A bundle with ONNX only, for tests that do not depend on the architecture."""
    folder = tmp_path_factory.mktemp("onnx")
    return export(write_checkpoint(folder / "tiny"), folder / "out", quant="int8", formats=["onnx"]).bundle


@pytest.fixture(scope="module")
def engine(bundle):
    with Engine.load(bundle.path, backend="onnx") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def expected(bundle):
    """Logits after each of `TOKENS`, from NumPy."""
    with Engine.load(bundle.path, backend="reference") as reference:
        return reference.backend.new_stream(64).forward_all(TOKENS)


def test_numpy_still_computes_with_subnormal_numbers(small):
    with Engine.load(small.path) as engine:
        engine.backend.new_stream(8).forward(TOKENS[:4])
    assert np.array([1e-40], np.float32) * np.float32(1) > 0


def test_a_model_without_a_tokenizer_takes_token_ids(small, tmp_path):
    for file in small.path.glob("model.onnx*"):
        shutil.copy(file, tmp_path)
    with Engine.load(tmp_path / "model.onnx") as engine:
        assert np.isfinite(engine.backend.new_stream(8).forward(TOKENS[:4])).all()
        with pytest.raises(TokenizerError, match="token ids"):
            engine.encode("a text")


def test_logits_are_those_of_the_reference(engine, expected):
    found = engine.backend.new_stream(64).forward_all(TOKENS)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("cuts", [[1, 2, 3, 20], list(range(1, 41))], ids=["chunks", "token by token"])
def test_chunks_give_the_logits_of_one_pass(engine, expected, cuts):
    stream = engine.backend.new_stream(64)
    parts = [TOKENS[start:end] for start, end in zip([0, *cuts], [*cuts, None], strict=True)]
    last = [stream.forward(part) for part in parts]
    assert stream.length == len(TOKENS)
    np.testing.assert_allclose(last, expected[[*(cut - 1 for cut in cuts), -1]], atol=1e-4)


def test_a_prompt_longer_than_a_chunk_is_split(engine, expected, monkeypatch):
    monkeypatch.setattr("sprat.runtime.backends.onnx.backend._CHUNK", 7)
    assert np.allclose(engine.backend.new_stream(64).forward_all(TOKENS), expected, atol=1e-4)
    assert np.allclose(engine.backend.new_stream(64).forward(TOKENS), expected[-1], atol=1e-4)


def test_the_whole_capacity_can_be_used(engine, expected):
    stream = engine.backend.new_stream(len(TOKENS))
    np.testing.assert_allclose(stream.forward(TOKENS), expected[-1], atol=1e-4)
    with pytest.raises(PromptError, match="1 more do not fit"):
        stream.forward([5])
    assert stream.length == stream.capacity == len(TOKENS)


def test_a_truncated_cache_continues(engine, expected):
    stream = engine.backend.new_stream(64)
    stream.forward(TOKENS[:20])
    stream.forward([7, 8, 9])
    stream.truncate(20)
    np.testing.assert_allclose(stream.forward(TOKENS[20:]), expected[-1], atol=1e-4)


def test_copied_entries_continue_in_another_stream(engine, expected):
    first, second = (engine.backend.new_stream(64) for _ in range(2))
    first.forward(TOKENS[:30])
    second.cache.append_rows(first.cache.rows(0, 30))
    assert second.length == 30
    np.testing.assert_allclose(second.forward(TOKENS[30:]), expected[-1], atol=1e-4)


def test_streams_are_independent(engine, expected):
    streams = [engine.backend.new_stream(64) for _ in range(2)]
    for stream, start in zip(streams, (3, 0), strict=True):
        stream.forward(TOKENS[start:20])
    np.testing.assert_allclose(streams[1].forward(TOKENS[20:]), expected[-1], atol=1e-4)


def test_generation_and_chat_are_those_of_the_reference(bundle, engine):
    with Engine.load(bundle.path, backend="reference") as reference:
        answers = [one.generate("The dog", max_tokens=12, temperature=0).text() for one in (engine, reference)]
        replies = [
            one.chat([{"role": "user", "content": "The fox"}], max_tokens=12, temperature=0)["choices"]
            for one in (engine, reference)
        ]
    assert answers[0] == answers[1] != ""
    assert replies[0] == replies[1]
    assert engine.backend_choice.name == "onnx"


def test_verify_compares_both_artifacts_of_a_bundle(bundle):
    source = bundle.path.parent / bundle.manifest.source.name
    found = verify(bundle.path, source, text="The quick brown fox. " * 20, backends=["reference", "onnx"])
    assert found.quality["onnx"].mean_kld < 1e-6
    assert found.quality["onnx"].n_tokens == found.quality["reference"].n_tokens


def test_inspect_shows_the_same_weights_of_both_artifacts(bundle):
    gguf, model = inspect(bundle.path), inspect(bundle.artifact("onnx"))
    assert model.kind == "onnx"
    assert (model.architecture, model.n_layers) == (gguf.architecture, gguf.n_layers)
    assert model.n_weights == sum(use.n_weights for use in gguf.tensors if use.role != "rope_freqs")
    assert any("also contains onnx: sprat inspect" in note for note in gguf.notes)


def test_auto_loads_a_bundle_with_onnx_only(small):
    with Engine.load(small.path) as engine, Engine.load(small.artifact("onnx")) as from_file:
        answers = [one.generate("The dog", max_tokens=8, seed=1).text() for one in (engine, from_file)]
        assert engine.backend_choice.name == "onnx"
        assert engine.name == "tiny"
    assert answers[0] == answers[1] != ""
    assert inspect(small.path).kind == "bundle"


def test_other_backends_reject_an_onnx_model(small):
    with pytest.raises(BundleError, match="no 'gguf' artifact in this bundle, only onnx"):
        Engine.load(small.path, backend="reference")
    with pytest.raises(BackendError, match="the reference backend reads gguf, not onnx"):
        Engine.load(small.artifact("onnx"), backend="reference")


def test_a_budget_that_is_too_small_is_refused(small):
    with pytest.raises(DoesNotFitError, match="the onnx backend needs"):
        Engine.load(small.path, memory="2MB")


@pytest.fixture(scope="module")
def moe(tmp_path_factory):
    """An MoE model with experts in int4."""
    folder = tmp_path_factory.mktemp("onnx")
    sizes = {"hidden_size": 128, "intermediate_size": 128, "moe_intermediate_size": 64}
    source = write_checkpoint(folder / "tiny", "deepseek2", **sizes)
    return open_model(export(source, folder / "out", quant="int4", formats=["onnx"]).bundle.artifact("onnx"))


def load_request(model, memory_bytes=None):
    return LoadRequest(file=model.file, spec=model.spec, context=64, n_threads=1, memory_bytes=memory_bytes)


def test_a_small_budget_takes_the_low_memory_form(moe, monkeypatch):
    opened = []
    original = onnx_backend.open_session
    monkeypatch.setattr(
        onnx_backend, "open_session", lambda *a, **k: opened.append(k["small_experts"]) or original(*a, **k)
    )
    fast = load_request(moe)
    needed = chosen_footprint(choose("onnx", fast), fast).total_bytes
    low_memory = load_request(moe, needed - 1)
    assert chosen_footprint(choose("onnx", low_memory), low_memory).total_bytes < needed
    answers = [open_backend(choose("onnx", one), one).new_stream(64).forward_all(TOKENS) for one in (fast, low_memory)]
    assert opened == [False, True]
    assert "ORT_QMOE_CPU_QNBIT_GEMM" not in os.environ
    assert not np.array_equal(*answers)  # activations of experts are float32 instead of int8
    assert float(np.abs(answers[0] - answers[1]).mean()) < 0.03  # a few tokens are routed to another expert


def test_short_chunks_give_the_same_logits(small):
    file = open_model(small.artifact("onnx")).file
    session = onnx_backend.open_session(file.path, n_threads=1)
    guard = LibraryGuard("onnxruntime", [])
    long, short = (onnx_backend.ONNXStream(session, file, 64, guard, chunk=chunk) for chunk in (64, 3))
    np.testing.assert_allclose(short.forward_all(TOKENS), long.forward_all(TOKENS), atol=5e-3)  # activations are int8


def test_using_a_closed_engine_is_an_error(small):
    engine = Engine.load(small.path)
    stream = engine.backend.new_stream(8)
    engine.close()
    stream.close()
    with pytest.raises(BackendError, match="closed"):
        stream.forward([1])
    with pytest.raises(BackendError, match="closed"):
        engine.backend.new_stream(8)


def test_token_ids_beyond_the_vocabulary_never_reach_the_graph(small):
    with Engine.load(small.path) as engine:
        stream = engine.backend.new_stream(8)
        for tokens in ([512], [-1], []):
            with pytest.raises(PromptError, match="expected at least one token id, each of 0 to 511"):
                stream.forward(tokens)


@pytest.fixture
def changed(small, tmp_path):
    """Saves the model after ``change(model)`` in a copy of its folder; returns its path."""

    def save(change):
        model = onnx.load(small.artifact("onnx"), load_external_data=False)
        change(model)
        path = shutil.copytree(small.path, tmp_path / "copy") / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return save


def record(model, key, value):
    for entry in model.metadata_props:
        if entry.key == key:
            entry.value = value


def test_an_unknown_kind_of_cache_is_refused(changed):
    with pytest.raises(ModelFileError, match=r"sprat\.cache is 'ring', expected append, shared, concat"):
        ONNXFile.open(changed(lambda model: record(model, "sprat.cache", "ring")))


def test_a_cache_of_another_architecture_is_refused(changed):
    with pytest.raises(ModelFileError, match=r"sprat\.cache is shared, but the model is deepseek2"):
        ONNXFile.open(changed(lambda model: record(model, "sprat.cache", "shared")))


def test_a_model_that_sprat_did_not_write_is_refused(changed):
    with pytest.raises(ModelFileError, match=r"no sprat\.spec and sprat\.cache in the metadata"):
        ONNXFile.open(changed(lambda model: model.ClearField("metadata_props")))


def test_a_graph_that_does_not_fit_its_spec_is_refused(changed, small):
    spec = {**small.manifest.spec, "n_layers": 5, "vocab_size": 500}
    with pytest.raises(ModelFileError, match=r"logits is 512, expected 500; past_latent\.4 is missing, expected 80"):
        ONNXFile.open(changed(lambda model: record(model, "sprat.spec", json.dumps(spec))))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"rope": 3}', "[" * 100_000])
def test_an_invalid_spec_is_a_config_error(changed, text):
    with pytest.raises(ConfigError, match="its architecture cannot be read"):
        ONNXFile.open(changed(lambda model: record(model, "sprat.spec", text)))


def test_a_model_that_onnxruntime_rejects_is_a_backend_error(changed):
    def break_it(model):
        del model.graph.node[5].input[:]

    with pytest.raises(BackendError, match="onnxruntime cannot load this model"):
        Engine.load(changed(break_it), backend="onnx")


def test_operators_that_the_exporter_does_not_write_are_an_error(changed):
    def break_it(model):
        model.graph.node[5].op_type = "NoSuchOperator"

    with pytest.raises(ModelFileError, match="the operator NoSuchOperator, which sprat's exporter does not write"):
        Engine.load(changed(break_it), backend="onnx")


def test_telemetry_is_off_before_onnxruntime_is_imported(small):
    program = f"""
import builtins, os, sys
real = builtins.__import__
def watch(name, *args, **kwargs):
    if name == "onnxruntime" and "onnxruntime" not in sys.modules:
        print("at import:", os.environ.get("ORT_DISABLE_TELEMETRY"))
    return real(name, *args, **kwargs)
builtins.__import__ = watch
from sprat.runtime.engine import Engine
assert "onnxruntime" not in sys.modules and "onnx" not in sys.modules
Engine.load({str(small.path)!r}).close()
"""
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    assert run.stdout.splitlines() == ["at import: 1"]
