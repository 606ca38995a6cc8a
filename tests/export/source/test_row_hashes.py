"""A tensor that changes between the two passes over a source is named, also where no time of the file shows it."""

import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoint import write_checkpoint

from sprat.errors import ExportError
from sprat.export.pipeline import export
from sprat.export.source import scan
from sprat.export.source.file import FileTensor, SourceFile
from sprat.export.source.row_hashes import RowHashes, hash_rows
from sprat.export.source.rows import read_rows
from sprat.quant.formats import get_format

ROWS = np.random.default_rng(0).integers(0, 256, (7, 18), np.uint8)


def expecting(rows):
    hashes = RowHashes()
    hashes.expect(int(hash_rows(rows, 0).sum()))
    return hashes


def read(hashes, rows, cuts):
    """Whether reads of ``rows`` from each cut to the next one, in the order of ``cuts``, are all the same."""
    ends = dict(zip(sorted(cuts), [*sorted(cuts)[1:], len(rows)], strict=True))
    return all(hashes.are_same(start, rows[start : ends[start]], len(rows)) for start in cuts)


@pytest.mark.parametrize("cuts", [[0], [3, 0], [6, 5, 4, 3, 2, 1, 0], [2, 0, 5]])
def test_rows_may_be_read_in_any_order_and_again(cuts):
    hashes = expecting(ROWS)
    assert read(hashes, ROWS, cuts)
    assert read(hashes, ROWS, cuts)


@pytest.mark.parametrize("cuts", [[0], [3, 0], [6, 5, 4, 3, 2, 1, 0]])
def test_one_bit_or_two_rows_that_swap_places_show(cuts):
    changed, swapped = ROWS.copy(), ROWS[[1, 0, *range(2, 7)]]
    changed[4, 17] ^= 128
    assert not read(expecting(ROWS), changed, cuts)
    assert not read(expecting(ROWS), swapped, cuts)


def test_a_row_that_is_read_twice_is_compared_with_itself():
    hashes, changed = expecting(ROWS), ROWS ^ 1
    assert hashes.are_same(2, ROWS[2:3], 7)
    assert not hashes.are_same(2, changed[2:3], 7)


def test_before_the_first_pass_nothing_is_compared():
    hashes = RowHashes()
    assert hashes.are_same(0, ROWS, 7)
    assert hashes.are_same(0, ROWS ^ 1, 7)


@given(n_rows=st.integers(1, 9), n_blocks=st.integers(1, 40), name=st.sampled_from(["F32", "BF16", "Q4_0", "MXFP4"]))
@settings(deadline=None, max_examples=40)
def test_the_pass_and_the_reads_agree_for_rows_of_any_length(tmp_path_factory, n_rows, n_blocks, name):
    stored = get_format(name)
    shape = (n_rows, n_blocks * max(stored.block_size, 512))
    path = tmp_path_factory.mktemp("rows") / "weights"
    path.write_bytes(os.urandom(8 + n_rows * stored.row_bytes(shape[1])))
    tensor = FileTensor("w", shape, stored, SourceFile.find(path), 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "CHUNK_BYTES", 1 << 15)  # some rows are longer
        scan.scan_files({tensor.file: [tensor]})
    for row in reversed(range(n_rows)):
        read_rows(tensor, row, row + 1)
    tensor.whole()
    assert not tensor.hashes.are_same(0, tensor.whole() ^ 1, n_rows)


@pytest.fixture
def blind(monkeypatch):
    """A file system whose sizes and times show no change."""
    monkeypatch.setattr(SourceFile, "_compare", lambda *_: None)


@pytest.mark.parametrize("architecture", ["deepseek2", "llama"])
def test_an_export_names_the_tensor_that_changed_between_the_passes(architecture, blind, tmp_path):
    source = write_checkpoint(tmp_path / "source", architecture)
    other = write_checkpoint(tmp_path / "other", architecture, seed=1)

    def swap(progress):
        if progress.what.startswith("blk.1."):
            shutil.copyfile(other / "model.safetensors", source / "model.safetensors")

    with pytest.raises(ExportError, match=r"changed while it was read \(tensor model\.layers\.\S+ has other weights"):
        export(source, tmp_path / "out", progress=swap, quality="none")
    assert not (tmp_path / "out").exists()


def test_a_config_that_changes_before_it_is_hashed_is_an_error(blind, tmp_path, monkeypatch):
    source = write_checkpoint(tmp_path / "source", "llama")
    real = scan.scan_files

    def changed_before(*arguments):
        text = (source / "config.json").read_text()
        (source / "config.json").write_text(text.replace("{", "{ ", 1))
        return real(*arguments)

    monkeypatch.setattr("sprat.export.source.checkpoint.scan_files", changed_before)
    with pytest.raises(ExportError, match=r"config\.json: the source changed while it was read"):
        export(source, tmp_path / "out")
