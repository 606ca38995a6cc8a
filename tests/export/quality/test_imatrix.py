"""llama.cpp's imatrix files."""

import gguf
import numpy as np
import pytest

from sprat.errors import InputError
from sprat.export.quality.imatrix import read_imatrix, write_imatrix

SQUARES = {
    "blk.0.attn_q.weight": np.arange(1, 9, dtype=np.float32)[None],
    "blk.0.ffn_up_exps.weight": np.random.default_rng(0).uniform(0.1, 2, (3, 8)).astype(np.float32),
}


def test_what_is_written_is_read_again(tmp_path):
    write_imatrix(tmp_path / "i.gguf", SQUARES, 640, "text")
    found = read_imatrix(tmp_path / "i.gguf")
    assert found.keys() == SQUARES.keys()
    assert all(np.allclose(found[name], SQUARES[name]) for name in SQUARES)


def test_the_file_has_llamacpps_layout(tmp_path):
    write_imatrix(tmp_path / "i.gguf", SQUARES, 640, "text")
    reader = gguf.GGUFReader(tmp_path / "i.gguf")
    assert reader.get_field("general.type").contents() == "imatrix"
    assert reader.get_field("imatrix.datasets").contents() == ["text"]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    sums = tensors["blk.0.ffn_up_exps.weight.in_sum2"]
    assert sums.shape.tolist() == [8, 3]  # ne: inputs, then experts
    assert np.allclose(sums.data, SQUARES["blk.0.ffn_up_exps.weight"] * 640)
    assert np.all(tensors["blk.0.ffn_up_exps.weight.counts"].data == 640)


def test_an_expert_without_tokens_has_the_mean_of_all(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "i.gguf", "none")
    writer.add_type("imatrix")
    writer.add_tensor("a.weight.in_sum2", np.array([[8, 16], [0, 0]], np.float32))
    writer.add_tensor("a.weight.counts", np.array([[4], [0]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_imatrix(tmp_path / "i.gguf")["a.weight"].tolist() == [[2, 4], [2, 4]]


def test_another_gguf_is_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("a.weight", np.zeros((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match=r"general\.type is None, expected 'imatrix'"):
        read_imatrix(tmp_path / "m.gguf")
