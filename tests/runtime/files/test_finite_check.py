"""Weights that are no numbers: refused where a load looks, found everywhere by a full check, harmless to kernels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import run
from native_kernels import BLOCK_FORMATS, every_isa, kernels_of, needs_native, random_weight

from sprat.errors import ModelFileError
from sprat.export.gguf.random_weights import write_shape
from sprat.runtime.files.finite_check import check_blocks
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.open_model import open_model
from sprat.runtime.weights import Weight

NAN_F16 = b"\xff\x7f"
TENSOR = "blk.1.ffn_up.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("shapes") / "small.gguf"
    write_shape(path, "smollm2-135m", "int4", layers=2)
    return path


@pytest.fixture
def spoilt(whole, tmp_path):
    """A copy of the file with no number for the scale of one Q4_0 block."""

    def spoil(block):
        path = tmp_path / "spoilt.gguf"
        data = bytearray(whole.read_bytes())
        with GGUFFile.open(whole) as file:
            info = file.tensors[TENSOR]
        assert info.type_name == "Q4_0"
        offset = (info.offset if block >= 0 else info.end) + 18 * block
        data[offset : offset + 2] = NAN_F16
        path.write_bytes(data)
        return path

    return spoil


def test_a_whole_file_passes(whole):
    with GGUFFile.open(whole) as file:
        check_blocks(file)
        check_blocks(file, every=True)


@pytest.mark.parametrize("block", [0, -1])
def test_a_load_refuses_a_tensor_with_a_spoilt_end(spoilt, block):
    with pytest.raises(ModelFileError, match=rf"{TENSOR}, block \d+ of \d+ \(byte \d+\): found Q4_0 weights"):
        open_model(spoilt(block), "native")


def test_what_lies_within_is_found_by_a_full_check_alone(spoilt):
    path = spoilt(1234)
    open_model(path, "native")
    with GGUFFile.open(path) as file, pytest.raises(ModelFileError, match="block 1234 of"):
        check_blocks(file, every=True)


def test_inspect_checks_on_request(whole, spoilt, capsys):
    code, out, _ = run(capsys, "inspect", str(whole), "--check", "--json")
    assert code == 0
    assert "checked: every weight is a finite number" in json.loads(out)["notes"]
    code, _, error = run(capsys, "inspect", str(spoilt(7)), "--check")
    assert code == 2
    assert "block 7 of" in error


@needs_native
@every_isa
@pytest.mark.parametrize("format_name", BLOCK_FORMATS)
@pytest.mark.parametrize("n_tokens", [1, 3, 40])
def test_kernels_survive_any_bytes_and_keep_them_to_their_rows(isa, format_name, n_tokens):
    rng = np.random.default_rng(n_tokens)
    weight = random_weight(rng, (37, 512), format_name)
    packed = weight.packed.copy()
    packed[5] = rng.integers(0, 256, packed.shape[1])
    packed[20] = 255  # every scale is no number
    x = rng.normal(size=(n_tokens, 512)).astype(np.float32)
    found = kernels_of(isa).linear(x, Weight("spoilt", weight.format, weight.shape, packed))
    kept = np.delete(np.arange(37), [5, 20])
    np.testing.assert_array_equal(found[:, kept], kernels_of(isa).linear(x, weight)[:, kept])
    assert not np.isfinite(found[:, 20]).any()
