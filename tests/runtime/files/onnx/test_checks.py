"""Malicious and damaged ONNX models are a ModelFileError before onnxruntime opens them."""

import os

import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from sprat.errors import ModelFileError  # noqa: E402
from sprat.runtime.files.onnx.checks import check_onnx, tensor_nbytes, tensors_of  # noqa: E402

ROW = bytes(range(16))  # four float32


def external(location="model.onnx.data", offset="0", length="16", **more):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": offset, "length": length, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def add(*, domain="", kind="Add", **attributes):
    return helper.make_node(kind, ["x", "w"], ["y"], domain=domain, **attributes)


@pytest.fixture
def save(tmp_path):
    """A function that writes ``bundle/model.onnx`` with one node, one weight and its data file; returns its path."""

    def write(tensor=None, node=None, functions=()):
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
        node = node or add()
        graph = helper.make_graph([node], "graph", [x], [y], [tensor or external()])
        opsets = [helper.make_opsetid(domain, 1) for domain in {"", node.domain}]
        model = helper.make_model(graph, opset_imports=opsets, functions=list(functions))
        folder = tmp_path / "bundle"
        folder.mkdir(exist_ok=True)
        (folder / "model.onnx.data").write_bytes(ROW)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        return folder / "model.onnx"

    return write


def test_a_valid_model_is_returned_without_its_weights(save):
    model = check_onnx(save())
    assert [tensor.name for tensor in tensors_of(model) if tensor.name] == ["w"]
    assert not model.graph.initializer[0].raw_data


def test_operators_of_onnxruntime_are_allowed(save):
    check_onnx(save(node=add(domain="com.microsoft", kind="BiasAdd")))


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../secret", "a/../../secret", "", "c:\\secret", "\\\\host\\secret"]
)
def test_a_path_outside_the_folder_is_an_error(save, tmp_path, location):
    (tmp_path / "secret").write_bytes(ROW)
    with pytest.raises(ModelFileError, match="expected a plain path inside the model's folder"):
        check_onnx(save(external(location)))


def test_a_memory_address_as_location_is_an_error(save):
    with pytest.raises(ModelFileError, match="external data in"):
        check_onnx(save(external("*/_ORT_MEM_ADDR_/*", offset="140737488355328")))


def test_a_symbolic_link_that_leaves_the_folder_is_an_error(save, tmp_path):
    (tmp_path / "secret").write_bytes(ROW)
    path = save(external("link"))
    path.with_name("link").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelFileError, match="a link that leaves the folder"):
        check_onnx(path)


def test_a_hard_link_to_a_file_outside_is_an_error(save, tmp_path):
    (tmp_path / "secret").write_bytes(ROW)
    path = save(external("hard"))
    os.link(tmp_path / "secret", path.with_name("hard"))
    with pytest.raises(ModelFileError, match="hard link to a file outside"):
        check_onnx(path)


def test_a_hard_link_inside_the_folder_is_allowed(save):
    path = save()
    os.link(path.with_name("model.onnx.data"), path.with_name("again"))
    check_onnx(path)


def test_a_missing_data_file_is_an_error(save):
    with pytest.raises(ModelFileError, match="'gone', which is missing"):
        check_onnx(save(external("gone")))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"offset": "4"}, "ends at byte 20 of a file of 16"),
        ({"offset": str(1 << 70)}, "ends at byte"),
        ({"offset": "-4"}, "expected numbers"),
        ({"offset": "0x4"}, "expected numbers"),
        ({"length": "12"}, "has 12 bytes, expected 16 for its shape .4,."),
        ({"basepath": "/etc"}, "unknown keys .'basepath'."),
    ],
)
def test_invalid_external_data_is_an_error(save, fields, message):
    with pytest.raises(ModelFileError, match=message):
        check_onnx(save(external(**fields)))


@pytest.mark.parametrize("change", [{"dims": [-4]}, {"data_type": 999}, {"data_type": TensorProto.STRING}])
def test_external_data_of_an_invalid_shape_or_type_is_an_error(save, change):
    tensor = external()
    for field, value in change.items():
        tensor.ClearField(field)
        if field == "dims":
            tensor.dims.extend(value)
        else:
            tensor.data_type = value
    with pytest.raises(ModelFileError, match="which external data cannot have"):
        check_onnx(save(tensor))


def test_a_tensor_in_an_attribute_is_checked(save):
    constant = helper.make_node("Constant", [], ["y"], value=external("../secret"))
    with pytest.raises(ModelFileError, match=r"external data in '\.\./secret'"):
        check_onnx(save(node=constant))


def test_a_tensor_in_a_branch_is_checked(save):
    y = helper.make_tensor_value_info("b", TensorProto.FLOAT, [4])
    branch = helper.make_graph(
        [helper.make_node("Identity", ["w2"], ["b"])], "then", [], [y], [external("/etc/passwd")]
    )
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    with pytest.raises(ModelFileError, match="'/etc/passwd'"):
        check_onnx(save(node=node))


@pytest.mark.parametrize("domain", ["ai.onnx.contrib", "my.ops", "com.microsoft.nchwc"])
def test_operators_of_a_custom_library_are_an_error(save, domain):
    with pytest.raises(ModelFileError, match=f"operators of the domain '{domain}'"):
        check_onnx(save(node=add(domain=domain, kind="Anything")))


def test_operators_of_a_custom_library_in_a_function_are_an_error(save):
    inner = helper.make_node("Anything", ["a"], ["b"], domain="my.ops")
    function = helper.make_function("com.microsoft", "Wrap", ["a"], ["b"], [inner], [helper.make_opsetid("", 1)])
    with pytest.raises(ModelFileError, match=r"domain 'my\.ops'"):
        check_onnx(save(functions=[function]))


def test_an_operator_that_opens_files_is_an_error(save):
    with pytest.raises(ModelFileError, match="the operator EPContext"):
        check_onnx(save(node=add(domain="com.microsoft", kind="EPContext")))


@pytest.mark.parametrize("field", ["location", "offset", "length"])
@pytest.mark.parametrize("damage", [b"\xff", b"\x80", b"\xc3("])
def test_a_string_that_is_not_utf8_is_an_error(save, field, damage):
    path = save(external(location="L" * 8, offset="O" * 8, length="N" * 8))
    whole, letter = path.read_bytes(), {"location": b"L", "offset": b"O", "length": b"N"}[field]
    path.write_bytes(whole.replace(letter * 8, damage + letter * (8 - len(damage))))
    with pytest.raises(ModelFileError):
        check_onnx(path)


@pytest.mark.parametrize("data", [b"", b"\0", b"GGUF" * 100, b"\x08" * 1000])
def test_a_file_that_is_not_a_model_is_an_error(tmp_path, data):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="ONNX model"):
        check_onnx(path)


def test_every_truncation_is_an_error(save):
    path = save()
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ModelFileError):
            check_onnx(path)


def test_a_pipe_or_a_folder_is_an_error(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path / "pipe.onnx", tmp_path):
        with pytest.raises(ModelFileError, match="not a regular file"):
            check_onnx(path)
    with pytest.raises(ModelFileError, match="cannot be opened"):
        check_onnx(tmp_path / "absent.onnx")


@pytest.mark.parametrize(
    ("kind", "dims", "nbytes"),
    [
        ("FLOAT", [3, 5], 60),
        ("UINT4", [3, 5], 8),
        ("INT4", [1], 1),
        ("UINT8", [7], 7),
        ("FLOAT16", [2, 2], 8),
        ("INT64", [], 8),
    ],
)
def test_tensor_sizes_equal_those_of_onnx(kind, dims, nbytes):
    assert tensor_nbytes(TensorProto(data_type=TensorProto.DataType.Value(kind), dims=dims)) == nbytes
