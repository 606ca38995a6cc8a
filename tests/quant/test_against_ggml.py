"""ggml's own quantizer, from the library in llama-cpp-python: the same bytes, or a smaller error."""

import ctypes
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from weights import hard_weights, ordinary_weights

from sprat.quant.formats import format_names, get_format
from sprat.runtime.files.gguf import GGUFFile

pytestmark = pytest.mark.slow
FORMATS = [found for found in map(get_format, format_names()) if found.block_size > 1]
BYTES_OF_GGML = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
SEARCHED = [found.name for found in FORMATS if found.name not in BYTES_OF_GGML]


@pytest.fixture(scope="module")
def ggml() -> ctypes.CDLL:
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None:
        pytest.skip("pip install llama-cpp-python")
    library = ctypes.CDLL(str(Path(found.origin).with_name("lib") / "libggml-base.so"))
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_get_type_traits.restype = ctypes.POINTER(TypeTraits)
    for found in FORMATS:
        library.ggml_quantize_init(found.ggml_type)
    return library


class TypeTraits(ctypes.Structure):
    """ggml_type_traits of ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


def quantize(ggml: ctypes.CDLL, name: str, weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    found, (n, k) = get_format(name), weights.shape
    packed = np.empty((n, found.row_bytes(k)), np.uint8)
    imatrix = None if importance is None else importance.ctypes.data
    written = ggml.ggml_quantize_chunk(found.ggml_type, weights.ctypes.data, packed.ctypes.data, 0, n, k, imatrix)
    assert written == packed.nbytes
    return packed


@pytest.mark.parametrize("name", [found.name for found in FORMATS])
def test_any_bytes_dequantize_as_in_ggml(ggml, name):
    found, traits = get_format(name), ggml.ggml_get_type_traits(get_format(name).ggml_type).contents
    assert (traits.type_name.decode().upper(), traits.blck_size, traits.type_size) == (
        name,
        found.block_size,
        found.block_bytes,
    )
    packed = np.random.default_rng(3).integers(0, 256, (999, found.block_bytes), dtype=np.uint8)
    if name == "MXFP4":
        packed[:, 0] %= 224  # larger scales are NaN here
    expected = np.empty((999, found.block_size), np.float32)
    traits.to_float(packed.ctypes.data, expected.ctypes.data, expected.size)
    np.testing.assert_array_equal(found.dequantize(packed), expected)


@pytest.mark.parametrize("name", BYTES_OF_GGML)
@pytest.mark.parametrize("kind", sorted(hard_weights().keys() - {"any bits", "smallest", "largest"}))
def test_the_bytes_are_ggmls(ggml, name, kind):
    weights = hard_weights()[kind]
    np.testing.assert_array_equal(get_format(name).quantize(weights), quantize(ggml, name, weights))


@pytest.fixture(scope="module")
def model_weights(smollm2_gguf) -> dict[str, np.ndarray]:
    """Weights of SmolLM2: the embedding is stored in Q8_0, the others in Q4_1."""
    names = ("token_embd.weight", "blk.3.ffn_down.weight", "blk.7.attn_q.weight")
    with GGUFFile.open(smollm2_gguf) as file:
        weights = {name: file.weight(name).dequantize() for name in names}
    return {name: found.reshape(-1)[: 2**18].reshape(-1, 512) for name, found in weights.items()}


@pytest.mark.parametrize("name", SEARCHED)
def test_the_error_is_smaller_than_ggmls(ggml, model_weights, name):
    for kind, weights in (ordinary_weights() | model_weights).items():
        found = get_format(name)
        ours, ggmls = (
            np.sqrt(np.mean((found.dequantize(packed) - weights) ** 2))
            for packed in (found.quantize(weights), quantize(ggml, name, weights))
        )
        assert ours < 0.99 * ggmls, kind


@pytest.mark.parametrize("name", [found.name for found in FORMATS])
@pytest.mark.parametrize("spread", [0.7, 2.0])
def test_the_weighted_error_is_not_larger_than_ggmls_with_the_same_imatrix(ggml, model_weights, name, spread):
    importance = np.exp(np.random.default_rng(8).normal(size=512) * spread).astype(np.float32)
    for kind, weights in (ordinary_weights() | model_weights).items():
        found = get_format(name)
        ours, ggmls = (
            np.mean(importance * (found.dequantize(packed) - weights) ** 2)
            for packed in (found.quantize(weights, importance), quantize(ggml, name, weights, importance))
        )
        # A refitted scale misses a grid that the weights lie on already, by the rounding of float16.
        assert ours <= ggmls + 1e-6 * np.mean(importance * weights**2), kind
