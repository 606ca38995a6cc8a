"""``llama_model_quantize`` and ``quantize`` write the same tensors, byte for byte."""

import ctypes

import gguf
import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

from sprat.export.gguf.quantize import quantize
from sprat.export.pipeline import export

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def llama_cpp():
    """The library with logging off: its log callback fails on text that llama.cpp cuts within a UTF-8 character."""
    library = pytest.importorskip("llama_cpp")
    silent = library.llama_log_callback(lambda *_: None)
    library.llama_log_set(silent, ctypes.c_void_p())
    yield library
    library.llama_log_set(library.llama_log_callback(), ctypes.c_void_p())


@pytest.mark.parametrize("quant", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "deepseek2"])
def test_llamacpp_and_sprat_write_the_same_tensors(llama_cpp, tmp_path, architecture, quant):
    checkpoint = write_checkpoint(tmp_path / "source", architecture)
    # llama.cpp's quantizer always pads to 32 bytes, which breaks files with another alignment.
    source = export(checkpoint, tmp_path / "f16", quant="f16", align=32).bundle.artifact()
    file_type = gguf.LlamaFileType[f"MOSTLY_{quant}"]
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread, parameters.pure = file_type, 1, True
    assert llama_cpp.llama_model_quantize(bytes(source), bytes(tmp_path / "theirs.gguf"), ctypes.byref(parameters)) == 0
    quantize(source, tmp_path / "ours.gguf", quant=quant, tensor_rules=[f".={quant}"])
    theirs, ours = (gguf.GGUFReader(tmp_path / name) for name in ("theirs.gguf", "ours.gguf"))
    assert ours.fields["general.file_type"].contents() == theirs.fields["general.file_type"].contents() == file_type
    expected = {tensor.name: tensor for tensor in theirs.tensors}
    assert expected.keys() == {tensor.name for tensor in ours.tensors}
    for tensor in ours.tensors:
        assert tensor.tensor_type == expected[tensor.name].tensor_type, tensor.name
        np.testing.assert_array_equal(tensor.data, expected[tensor.name].data)
