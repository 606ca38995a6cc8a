"""The files of an ONNX export: offsets of weights, metadata of the graph, and interrupted exports."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tiny_checkpoint import CONFIGS, write_checkpoint

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

import onnx
from onnx_models import Runner, artifact, write

import sprat
from sprat.errors import ConfigError, InputError
from sprat.export.inspection import inspect
from sprat.export.onnx.ort_version import OrtVersion
from sprat.export.pipeline import export
from sprat.export.source.checkpoint import Checkpoint
from sprat.runtime.arch.tensors import expected_tensors
from sprat.runtime.files.bundle import Bundle
from sprat.runtime.files.onnx.checks import all_graphs
from sprat.runtime.files.onnx.file import ONNXFile
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.models import Model

PAGE = 4096


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Architecture -> a tiny checkpoint."""
    folder = tmp_path_factory.mktemp("sources")
    return {name: write_checkpoint(folder / f"tiny-{name}-Chat", name) for name in CONFIGS}


@pytest.fixture
def source(sources):
    return sources["deepseek2"]


@pytest.fixture(params=CONFIGS)
def checkpoint(request, sources):
    return Checkpoint.open(sources[request.param])


def initializers(folder: Path):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    return {tensor.name: tensor for tensor in model.graph.initializer}


def external_data(folder: Path):
    """Name -> (offset, length) of every weight outside the graph."""
    found = {}
    for name, tensor in initializers(folder).items():
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            assert entries["location"] == "model.onnx.data"
            found[name] = int(entries["offset"]), int(entries["length"])
    return found


def operators(graph):
    """``(domain, op_type)`` of every node, branches included."""
    for node in graph.node:
        yield node.domain, node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from operators(attribute.g)


@pytest.mark.parametrize("quant", ["f32", "int4", "q4_1"])
def test_every_array_begins_on_its_own_page(checkpoint, tmp_path, quant):
    folder = write(tmp_path / "out", checkpoint, quant)
    spans = sorted(set(external_data(folder).values()))
    whole = [span for span in spans if span[0] % PAGE == 0]
    size = (folder / "model.onnx.data").stat().st_size
    assert size % PAGE == 0
    assert all(begin + length <= size for begin, length in spans)
    if checkpoint.spec.moe is None:  # single experts and heads are parts of a stack
        assert whole == spans
    ends = [begin + length for begin, length in whole]
    assert all(end <= begin for end, (begin, _) in zip(ends, whole[1:], strict=False))


def test_the_graph_contains_no_weights(checkpoint, tmp_path):
    folder = write(tmp_path / "out", checkpoint, "int4")
    assert max(len(tensor.raw_data) for tensor in initializers(folder).values()) <= 512
    assert all(tensor.name for tensor in initializers(folder).values())


@pytest.mark.parametrize("portable", [False, True], ids=["contrib", "portable"])
def test_all_weights_belong_to_the_main_graph(checkpoint, tmp_path, portable):
    """onnxruntime-web does not load the external data of a branch."""
    folder = write(tmp_path / "out", checkpoint, "int4", portable=portable)
    main, *branches = all_graphs(onnx.load(folder / "model.onnx", load_external_data=False))
    assert main.initializer
    assert not any(branch.initializer for branch in branches)


def test_tied_embeddings_are_stored_once(sources, tmp_path):
    folder = write(tmp_path / "out", Checkpoint.open(sources["qwen2"]), "int4")
    found = external_data(folder)
    assert found["token_embd.weight.rows"] == found["token_embd.weight.blocks"]


@pytest.mark.parametrize("quant", ["f32", "int4"])
def test_a_portable_graph_is_standard_onnx(checkpoint, tmp_path, quant):
    folder = write(tmp_path / "out", checkpoint, quant, portable=True)
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21 if quant == "int4" else 18)]
    assert {domain for domain, _ in operators(model.graph)} == {""}


def test_a_graph_for_onnxruntime_uses_contrib_operators(source, tmp_path):
    folder = write(tmp_path / "out", Checkpoint.open(source), "int4")
    found = set(operators(onnx.load(folder / "model.onnx", load_external_data=False).graph))
    contrib = {kind for domain, kind in found if domain == "com.microsoft"}
    assert contrib >= {"MatMulNBits", "RotaryEmbedding"}
    assert {domain for domain, _ in found} == {"", "com.microsoft"}


@pytest.mark.parametrize(
    ("quant", "options", "requires", "has_qmoe"),
    [
        ("int4", {}, "onnxruntime >= 1.22", False),
        ("int4", {"ort": OrtVersion(1, 30)}, "onnxruntime >= 1.22", False),
        ("int4", {"ort": OrtVersion(1, 31)}, "onnxruntime >= 1.31", True),
        ("int8", {"ort": OrtVersion(2, 0)}, "onnxruntime >= 1.31", True),
        ("int8", {}, "onnxruntime >= 1.22", False),
        ("int8", {"accuracy_level": 0}, "onnxruntime >= 1.23", False),
        ("f32", {"ort": OrtVersion(1, 31)}, "onnxruntime >= 1.22", False),
        ("int4", {"portable": True, "ort": OrtVersion(1, 31)}, "onnxruntime >= 1.22, ONNX opset 21", False),
        ("f16", {"portable": True}, "onnxruntime >= 1.22, ONNX opset 18", False),
    ],
)
def test_the_oldest_onnxruntime_is_a_property_of_the_graph(source, tmp_path, quant, options, requires, has_qmoe):
    checkpoint = Checkpoint.open(source)
    folder = write(tmp_path / "out", checkpoint, quant, **options)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    assert artifact(checkpoint, quant, **options).requires == requires
    assert ONNXFile.open(folder / "model.onnx").metadata["sprat.requires"] == requires
    assert (("com.microsoft", "QMoE") in set(operators(model.graph))) == has_qmoe


def test_manifest_and_inspection_state_the_oldest_onnxruntime(source, tmp_path):
    export(source, tmp_path / "old", formats=("onnx", "gguf"))
    export(source, tmp_path / "new", formats=("onnx",), ort="1.31.1")
    manifest = Bundle.open(tmp_path / "old").manifest
    assert [entry.requires for entry in manifest.artifacts] == ["onnxruntime >= 1.22", msgspec.UNSET]
    for name, version in (("old/model.onnx", "1.22"), ("new", "1.31")):
        runtime = inspect(tmp_path / name).runtimes[0]
        assert (runtime.name, runtime.why.split(",")[0]) == ("onnxruntime", f"onnxruntime >= {version}")


@pytest.mark.parametrize("text", ["", "1", "1.21", "0.99", "1.22.", "1.22rc1", "-1.22", "1.٣٢", "1." + "9" * 400])
def test_a_version_that_no_graph_loads_in_is_an_error(source, tmp_path, text):
    with pytest.raises(InputError, match="onnxruntime"):
        export(source, tmp_path / "out", formats=("onnx",), ort=text)
    assert not (tmp_path / "out").exists()


def test_names_follow_the_model(source, tmp_path):
    folder = write(tmp_path / "out", Checkpoint.open(source), "int4")
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert {"blk.0/attn/query", "blk.1/moe/experts.0/If", "blk.1/moe/router"} <= set(names)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.input
    }
    assert shapes["input_ids"] == [1, "n"]
    assert shapes["past_latent.3"] == ["past", 80]


def test_metadata_describes_the_model(checkpoint, tmp_path):
    file = ONNXFile.open(write(tmp_path / "out", checkpoint, "int4") / "model.onnx")
    assert file.spec == checkpoint.spec
    assert file.metadata["sprat.recipe"] == "int4"
    assert file.metadata["sprat.source"] == checkpoint.hash()
    assert file.metadata["sprat.operators"] == "contrib"
    assert file.cache == ("append" if checkpoint.spec.moe else "shared")


def test_groups_count_every_weight(checkpoint):
    groups = artifact(checkpoint, "int4").groups
    n_weights = sum(np.prod(shape) for name, shape in expected_tensors(checkpoint.spec).items() if name in checkpoint)
    rope_factors = 8 if checkpoint.spec.architecture == "llama" else 0  # constants of the graph
    assert sum(group.n_weights for group in groups) == n_weights - rope_factors


def test_one_export_writes_both_formats(source, tmp_path):
    bundle = export(source, tmp_path / "out", quant="int4", formats=("onnx", "gguf")).bundle
    bundle.check()
    assert [artifact.format for artifact in bundle.manifest.artifacts] == ["onnx", "gguf"]
    names = {file.name for file in bundle.manifest.files}
    assert {"model.onnx", "model.onnx.data", "tokenizer.json"} <= names
    assert bundle.artifact("onnx").name == "model.onnx"


def test_two_exports_are_the_same_bytes(source, tmp_path):
    for name in ("a", "b"):
        export(source, tmp_path / name, quant="int4", formats=("onnx",))
    for name in ("manifest.json", "model.onnx", "model.onnx.data"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    again = export(source, tmp_path / "a", quant="int4", formats=("onnx",))
    assert again.notes == ("the bundle exists already and is up to date",)


def test_an_interrupted_export_continues_to_the_same_bytes(source, tmp_path):
    whole = export(source, tmp_path / "whole", quant="int4", formats=("onnx",)).bundle

    def stop(progress):
        if progress.what.startswith("blk.2."):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(source, tmp_path / "out", quant="int4", formats=("onnx",), progress=stop)
    assert not (tmp_path / "out").exists()
    finished = export(source, tmp_path / "out", quant="int4", formats=("onnx",))
    assert finished.n_resumed > 10
    for name in ("manifest.json", "model.onnx", "model.onnx.data"):
        assert (finished.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_other_options_give_another_layout_digest(source):
    checkpoint = Checkpoint.open(source)
    digests = {
        artifact(checkpoint, "int4").layout_digest,
        artifact(checkpoint, "int8").layout_digest,
        artifact(checkpoint, "int4", portable=True).layout_digest,
        artifact(checkpoint, "int4", accuracy_level=0).layout_digest,
        artifact(checkpoint, "int4", ort=OrtVersion(1, 31)).layout_digest,
    }
    assert len(digests) == 5
    assert artifact(checkpoint, "int4").layout_digest in digests


def test_a_bundle_of_a_gguf_has_a_tokenizer_and_the_same_graph(sources, tmp_path):
    first = export(sources["llama"], tmp_path / "f32", quant="f32")
    again = export(first.bundle.artifact(), tmp_path / "again", quant="int4", formats=("onnx",)).bundle
    direct = export(sources["llama"], tmp_path / "direct", quant="int4", formats=("onnx",)).bundle
    assert again.file("tokenizer.json") is not None
    assert (again.path / "model.onnx.data").read_bytes() == (direct.path / "model.onnx.data").read_bytes()


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_the_config_for_onnxruntime_genai(sources, tmp_path, architecture):
    bundle = export(sources[architecture], tmp_path / "out", formats=("onnx",)).bundle
    config = json.loads((bundle.path / "genai_config.json").read_text())["model"]
    assert config["type"] == architecture
    assert (config["bos_token_id"], config["eos_token_id"]) == (0, 1)
    names = {value.name for value in onnx.load(bundle.artifact("onnx"), load_external_data=False).graph.input}
    assert {pattern % 3 for pattern in config["decoder"]["inputs"].values() if "%d" in pattern} <= names


@pytest.mark.parametrize(
    ("limit", "options", "max_length"),
    [
        (131_072, {}, 4096),
        (131_072, {"context": 512}, 512),
        (131_072, {"device": "rpi5-8gb"}, 4096),
        (1024, {}, 1024),
        (1024, {"context": 4096}, 1024),
    ],
)
def test_genai_reserves_the_planned_context(tmp_path, limit, options, max_length):
    source = write_checkpoint(tmp_path / "tiny", "llama", max_position_embeddings=limit)
    bundle = export(source, tmp_path / "out", formats=("onnx",), **options).bundle
    config = json.loads((bundle.path / "genai_config.json").read_text())
    assert config["search"]["max_length"] == max_length
    assert config["model"]["context_length"] == limit


def test_latent_attention_has_no_config_for_onnxruntime_genai(source, tmp_path):
    bundle = export(source, tmp_path / "out", formats=("onnx",)).bundle
    assert bundle.file("genai_config.json") is None


@pytest.mark.parametrize("portable", [False, True], ids=["contrib", "portable"])
def test_a_batch_gives_the_logits_of_each_sequence_alone(sources, tmp_path, portable):
    checkpoint = Checkpoint.open(sources["qwen2"])
    run = Runner(write(tmp_path / "out", checkpoint, portable=portable), checkpoint.spec)
    tokens = np.random.default_rng(0).integers(0, 512, (3, 9))
    run.reset(batch=3)
    together = np.concatenate([run(tokens[:, :8]), run(tokens[:, 8:])], axis=1)
    for row, logits in zip(tokens, together, strict=True):
        np.testing.assert_allclose(run.in_chunks(row), logits, atol=1e-4)


def test_without_onnx_ir_the_error_names_the_package(source, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sprat.export.onnx.artifact", None)
    with pytest.raises(InputError, match=r"pip install 'sprat\[onnx\]'"):
        export(source, tmp_path / "out", formats=("onnx",))


def test_a_bundle_opens(source, tmp_path):
    export(source, tmp_path / "out", formats=("onnx",), portable=True)
    assert Bundle.open(tmp_path / "out").manifest.recipe == "int4"


def test_what_llamacpp_does_not_run_is_planned_and_exported_without_it(tmp_path):
    """Llama 3.1's factors have a tensor in llama files only."""
    scaling = CONFIGS["llama"]["rope_scaling"]
    source = write_checkpoint(tmp_path / "source", "qwen2", rope_scaling=scaling)
    assert sprat.plan(source, devices=["rpi5-8gb"])[0].runs
    with pytest.raises(ConfigError, match=r"cannot run this qwen2 model: .*; export it with --format onnx$"):
        export(source, tmp_path / "gguf")
    out = export(source, tmp_path / "onnx", quant="f32", formats=["onnx"]).bundle.path
    tokens = [[5, 6, 7, 8] * 8]
    runner, model = Runner(out, Checkpoint.open(source).spec), Checkpoint.open(source)
    expected = Model(model.spec, model, ReferenceKernels())
    logits = expected.forward(np.array(tokens[0]), expected.new_cache(32), all_logits=True)
    np.testing.assert_allclose(runner(tokens)[0], logits, atol=1e-4 * np.abs(logits).max())
