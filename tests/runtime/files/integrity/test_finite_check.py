"""NaN and Inf weights: loading checks the ends of tensors, a full check finds all, kernels survive them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import run
from native_kernels import BLOCK_FORMATS, every_isa, kernels_of, needs_native, random_weight

from sprat.errors import ModelFileError
from sprat.export.gguf.random_weights import write_preset
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.integrity.finite_check import check_finite
from sprat.runtime.open_model import open_model
from sprat.runtime.weights import Weight

NAN_F16 = b"\xff\x7f"
TENSOR = "blk.1.ffn_up.weight"


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    path = tmp_path_factory.mktemp("shapes") / "small.gguf"
    write_preset(path, "smollm2-135m", "int4", layers=2)
    return path


@pytest.fixture
def damaged(intact, tmp_path):
    """A function that copies the file with a NaN scale in one Q4_0 block."""

    def damage(block):
        path = tmp_path / "damaged.gguf"
        data = bytearray(intact.read_bytes())
        with GGUFFile.open(intact) as file:
            info = file.tensors[TENSOR]
        assert info.type_name == "Q4_0"
        offset = (info.offset if block >= 0 else info.end) + 18 * block
        data[offset : offset + 2] = NAN_F16
        path.write_bytes(data)
        return path

    return damage


def test_an_intact_file_passes(intact):
    with GGUFFile.open(intact) as file:
        check_finite(file)
        check_finite(file, every=True)


@pytest.mark.parametrize("block", [0, -1])
def test_loading_finds_nan_at_the_ends_of_a_tensor(damaged, block):
    with pytest.raises(ModelFileError, match=rf"{TENSOR}, block \d+ of \d+ \(byte \d+\): found Q4_0 weights"):
        open_model(damaged(block), "native")


def test_only_a_full_check_finds_nan_inside_a_tensor(damaged):
    path = damaged(1234)
    open_model(path, "native")
    with GGUFFile.open(path) as file, pytest.raises(ModelFileError, match="block 1234 of"):
        check_finite(file, every=True)


def test_inspect_check_runs_the_full_check(intact, damaged, capsys):
    code, out, _ = run(capsys, "inspect", str(intact), "--check", "--json")
    assert code == 0
    assert "checked: all weights are finite" in json.loads(out)["notes"]
    code, _, error = run(capsys, "inspect", str(damaged(7)), "--check")
    assert code == 2
    assert "block 7 of" in error


@needs_native
@every_isa
@pytest.mark.parametrize("format_name", BLOCK_FORMATS)
@pytest.mark.parametrize("n_tokens", [1, 3, 40])
def test_kernels_survive_any_bytes_and_only_their_rows_are_affected(isa, format_name, n_tokens):
    rng = np.random.default_rng(n_tokens)
    weight = random_weight(rng, (37, 512), format_name)
    packed = weight.packed.copy()
    packed[5] = rng.integers(0, 256, packed.shape[1])
    packed[20] = 255  # every scale is NaN; in NVFP4, whose scales have no NaN, ggml reads 480
    x = rng.normal(size=(n_tokens, 512)).astype(np.float32)
    result = kernels_of(isa).linear(x, Weight("damaged", weight.format, weight.shape, packed))
    intact_rows = np.delete(np.arange(37), [5, 20])
    expected = kernels_of(isa).linear(x, weight)
    np.testing.assert_array_equal(result[:, intact_rows], expected[:, intact_rows])
    assert np.isfinite(result[:, 20]).any() == (format_name == "NVFP4")
