"""ggml's own quantizer, from the library in llama-cpp-python: the same bytes, or a smaller error."""

import ctypes
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from weights import hard_weights, ordinary_weights

from sprat.quant.formats import get_format
from sprat.runtime.files.gguf import GGUFFile

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ggml() -> ctypes.CDLL:
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None:
        pytest.skip("pip install llama-cpp-python")
    library = ctypes.CDLL(str(Path(found.origin).with_name("lib") / "libggml-base.so"))
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library


def quantize(ggml: ctypes.CDLL, name: str, weights: np.ndarray) -> np.ndarray:
    found, (n, k) = get_format(name), weights.shape
    packed = np.empty((n, found.row_bytes(k)), np.uint8)
    written = ggml.ggml_quantize_chunk(found.ggml_type, weights.ctypes.data, packed.ctypes.data, 0, n, k, None)
    assert written == packed.nbytes
    return packed


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
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


@pytest.mark.parametrize("name", ["IQ4_NL", "Q4_K", "Q5_K", "Q6_K"])
def test_the_error_is_smaller_than_ggmls(ggml, model_weights, name):
    for kind, weights in (ordinary_weights() | model_weights).items():
        found = get_format(name)
        ours, ggmls = (
            np.sqrt(np.mean((found.dequantize(packed) - weights) ** 2))
            for packed in (found.quantize(weights), quantize(ggml, name, weights))
        )
        assert ours < 0.99 * ggmls, kind
