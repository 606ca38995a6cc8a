"""A graph with what sprat's exporter does not write is refused before onnxruntime loads it, unless it is trusted."""

import json
import shutil

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from sprat.errors import ConfigError, ModelFileError  # noqa: E402
from sprat.export.pipeline import export  # noqa: E402
from sprat.runtime.arch.spec_json import spec_from_json  # noqa: E402
from sprat.runtime.engine import Engine  # noqa: E402
from sprat.runtime.files.onnx.file import ONNXFile  # noqa: E402


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folders of an MLA-MoE model and of a dense one."""
    root = tmp_path_factory.mktemp("operators")
    sources = {name: write_checkpoint(root / name, name) for name in ("deepseek2", "qwen2")}
    return {name: export(source, root / f"{name}-out", formats=("onnx",)).path for name, source in sources.items()}


@pytest.fixture
def changed(exported, tmp_path):
    """A function that changes the MoE model's graph and returns its path."""

    def change(edit):
        folder = shutil.copytree(exported["deepseek2"], tmp_path / "out")
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        edit(model.graph)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        return folder / "model.onnx"

    return change


def scalar(name, value, dtype=np.int64):
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def add_loop(graph):
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, [])],
        [value("on", TensorProto.BOOL, [])],
    )
    graph.initializer.extend([scalar("rounds", 2**62), scalar("yes", True, np.bool_)])
    graph.node.insert(0, helper.make_node("Loop", ["rounds", "yes"], [], body=body))


def add_constant_of_shape(graph):
    graph.initializer.append(scalar("huge", [3_000_000_000]))
    graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge"], ["zeros"]))


def add_expand(graph):
    graph.initializer.extend([scalar("huge", [3_000_000_000]), scalar("one", 1.0, np.float32)])
    graph.node.insert(0, helper.make_node("Expand", ["one", "huge"], ["ones"]))


def add_range(graph):
    graph.initializer.extend([scalar("zero", 0), scalar("huge", 3_000_000_000), scalar("one", 1)])
    graph.node.insert(0, helper.make_node("Range", ["zero", "huge", "one"], ["numbers"]))


def add_nested_tile(graph):
    node = next(node for node in graph.node if node.op_type == "If")
    branch = node.attribute[0].g
    graph.initializer.append(scalar("many", [1 << 30]))
    branch.node.append(helper.make_node("Tile", [branch.node[0].output[0], "many"], ["tiled"]))


def add_doublings(graph):
    graph.initializer.append(scalar("one", [1.0], np.float32))
    for i in range(40):
        before = f"doubled{i - 1}" if i else "one"
        graph.node.insert(i, helper.make_node("Concat", [before, before], [f"doubled{i}"], axis=0))


def add_hidden_doublings(graph):
    """Copies that other operators make: slices, casts, sums, and the branches of an If."""
    graph.initializer.extend([scalar("one", [1.0], np.float32), scalar("yes", True, np.bool_), scalar("none", [0.0])])
    nodes = []
    for i in range(40):
        before, copy = f"doubled{i - 1}" if i else "one", f"copy{i}"
        value = [helper.make_tensor_value_info(copy, TensorProto.FLOAT, None)]
        branch = helper.make_graph([helper.make_node("Identity", [before], [copy])], f"branch{i}", [], value)
        makers = [
            helper.make_node("Split", [before], [copy], num_outputs=1),
            helper.make_node("Add", [before, "none"], [copy]),
            helper.make_node("If", ["yes"], [copy], then_branch=branch, else_branch=branch),
        ]
        nodes += [makers[i % 3], helper.make_node("Concat", [copy, before], [f"doubled{i}"], axis=0)]
    for i, node in enumerate(nodes):
        graph.node.insert(i, node)


def add_wide_concatenations(graph):
    graph.initializer.append(scalar("one", [1.0], np.float32))
    for i in range(3):
        graph.node.insert(i, helper.make_node("Concat", [f"wide{i - 1}" if i else "one"] * 4096, [f"wide{i}"], axis=0))


def add_large_constant(graph):
    graph.initializer.append(scalar("large", np.zeros(1 << 16), np.float32))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (add_loop, "the operator Loop"),
        (add_constant_of_shape, "the operator ConstantOfShape"),
        (add_expand, "Expand '' makes an array of a size of its own"),
        (add_range, "Range '' makes an array of a size of its own"),
        (add_nested_tile, "the operator Tile"),
        (add_doublings, "Concat '' holds 32 copies of an array, expected at most 16"),
        (add_hidden_doublings, "Concat '' holds 32 copies of an array"),
        (add_wide_concatenations, "Concat '' holds 4,096 copies of an array"),
        (add_large_constant, "tensor 'large' has 262,"),
    ],
)
def test_what_the_exporter_does_not_write_is_an_error(changed, edit, message):
    path = changed(edit)
    with pytest.raises(ModelFileError, match=message):
        ONNXFile.open(path)
    ONNXFile.open(path, trust=True)


def add_absolute_value(graph):
    graph.initializer.append(scalar("number", -1))
    graph.node.append(helper.make_node("Abs", ["number"], ["unused"]))


def test_a_trusted_graph_with_other_operators_is_loaded(changed):
    pytest.importorskip("onnxruntime")
    path = changed(add_absolute_value)
    with pytest.raises(ModelFileError, match=r"operator Abs.* trust=True \(--trust\)"):
        Engine.load(path.parent / "model.onnx", backend="onnx")
    with Engine.load(path.parent / "model.onnx", backend="onnx", trust=True) as engine:
        assert list(engine.generate([1, 2, 3], max_tokens=2))


@pytest.mark.parametrize("name", ["deepseek2", "qwen2"])
def test_exported_graphs_are_taken(exported, name):
    assert ONNXFile.open(exported[name] / "model.onnx").spec.n_layers


@pytest.mark.parametrize("size", [0, -1])
def test_no_size_of_the_architecture_is_zero_or_negative(exported, size):
    for folder in exported.values():
        fields = spec_fields(folder)
        for record in (fields, *(value for value in fields.values() if isinstance(value, dict))):
            for name, value in record.items():
                if type(value) is int and name not in {"n_shared_experts", "n_dense_layers"}:
                    text = replaced(fields, record, name, size)
                    with pytest.raises(ConfigError):
                        spec_from_json(text, "model.onnx")


def spec_fields(folder):
    return json.loads(ONNXFile.open(folder / "model.onnx").metadata["sprat.spec"])


def replaced(fields, record, name, value):
    """The JSON of ``fields`` with one entry of ``record``, which is in it, replaced."""
    before, record[name] = record[name], value
    try:
        return json.dumps(fields)
    finally:
        record[name] = before


@pytest.mark.parametrize("portable", [False, True], ids=["contrib", "portable"])
def test_a_model_with_as_many_experts_as_deepseek_v3_opens(tmp_path, portable):
    source = write_checkpoint(tmp_path / "model", "deepseek2", n_routed_experts=256)
    folder = export(source, tmp_path / "out", formats=("onnx",), portable=portable).path
    assert ONNXFile.open(folder / "model.onnx").spec.moe.n_routed_experts == 256


def add_fed_constant(graph):
    """An array without elements until the caller feeds a large one."""
    graph.initializer.append(scalar("fed", np.empty(0), np.float32))
    graph.input.append(helper.make_tensor_value_info("fed", TensorProto.FLOAT, ["n"]))
    graph.node.insert(0, helper.make_node("Concat", ["fed"] * 32, ["copies"], axis=0))


def test_a_constant_without_elements_that_is_an_input_counts_as_an_array(changed):
    with pytest.raises(ModelFileError, match="Concat '' holds 32 copies of an array"):
        ONNXFile.open(changed(add_fed_constant))
