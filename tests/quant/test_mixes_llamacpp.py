"""Every mix against ``llama_model_quantize``: the same type and bytes for every tensor."""

import ctypes
import math

import pytest
from tiny_checkpoint import write_checkpoint

from sprat import demo
from sprat.export.pipeline import export
from sprat.quant.formats import format_of_type
from sprat.quant.mixes import MIXES
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.model_shape import shape_of_keys
from sprat.runtime.files.gguf import GGUFFile

pytestmark = pytest.mark.slow
MODELS = {
    "llama": ("llama", {"hidden_size": 512, "intermediate_size": 768, "num_hidden_layers": 17}),
    "llama with 8 heads on one": (
        "llama",
        {"hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 1, "num_hidden_layers": 9},
    ),
    "qwen2": ("qwen2", {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 16}),
    "qwen2 with odd rows": ("qwen2", {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 3}),
    "V2-Lite": (
        "deepseek2",
        {"hidden_size": 256, "moe_intermediate_size": 352, "intermediate_size": 736, "num_hidden_layers": 12},
    ),
    "8 experts": ("deepseek2", {"hidden_size": 256, "moe_intermediate_size": 256, "n_routed_experts": 8}),
}


@pytest.fixture(scope="module")
def llama_cpp():
    """The library with logging off: its log callback fails on text that llama.cpp cuts within a UTF-8 character."""
    library = pytest.importorskip("llama_cpp")
    silent = library.llama_log_callback(lambda *_: None)
    library.llama_log_set(silent, ctypes.c_void_p())
    yield library
    library.llama_log_set(library.llama_log_callback(), ctypes.c_void_p())


@pytest.fixture(scope="module", params=["student", *MODELS])
def source(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    if request.param == "student":
        checkpoint = demo.path()
    else:
        architecture, changes = MODELS[request.param]
        checkpoint = write_checkpoint(folder / "checkpoint", architecture, **changes)
    # llama.cpp's quantizer always pads to 32 bytes, which breaks files with another alignment.
    return export(checkpoint, folder / "f16", quant="f16", align=32).bundle.artifact()


@pytest.mark.parametrize("name", MIXES)
def test_every_tensor_has_llama_quantizes_type(llama_cpp, source, tmp_path, name):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = MIXES[name].file_type, 2
    theirs = tmp_path / "theirs.gguf"
    assert llama_cpp.llama_model_quantize(bytes(source), bytes(theirs), ctypes.byref(parameters)) == 0
    with GGUFFile.open(source) as file:
        tied = "output.weight" not in file.tensors
        recipe = Recipe.named(name, tied_embeddings=tied, model=shape_of_keys(file.metadata))
        found = {tensor: recipe.choose(tensor, info.shape).format for tensor, info in file.tensors.items()}
        n_bytes = {tensor: found[tensor].row_bytes(math.prod(info.shape)) for tensor, info in file.tensors.items()}
    with GGUFFile.open(theirs) as file:
        assert recipe.file_type(recipe.default) == file.metadata["general.file_type"]
        assert {tensor: format.name for tensor, format in found.items()} == {
            tensor: format_of_type(info.format_type).name for tensor, info in file.tensors.items()
        }
        assert n_bytes == {tensor: file.weight(tensor).nbytes for tensor in file.tensors}
