"""The calibration text as token ids."""

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

from sprat.errors import InputError
from sprat.export.calibration import calibration_sequences, hold_out, packaged_documents, with_packaged
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.export.texts import calibration_text, evaluation_text
from sprat.runtime.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    return tokenizer_metadata(write_checkpoint(tmp_path_factory.mktemp("c") / "source", "deepseek2"))


def test_the_packaged_text_has_every_kind_and_many_scripts():
    documents = packaged_documents()
    roles = [tuple(role for role, _ in document.parts) for document in documents]
    assert sum("think" in parts for parts in roles) >= 10
    assert any(len(parts) >= 5 and "think" not in parts for parts in roles)
    assert sum(parts == ("",) for parts in roles) >= 15
    for letter in "дमし个한ةßéñã":
        assert letter in calibration_text()


def test_verification_reads_another_text():
    known = {line.strip() for line in evaluation_text().splitlines() if len(line) > 30}
    assert not known & {line.strip() for line in calibration_text().splitlines()}


def test_sequences_begin_with_bos_and_fit_the_window(metadata):
    tokenizer = Tokenizer.from_gguf(metadata)
    sequences = calibration_sequences(metadata, window=64)
    assert all(sequence[0] == tokenizer.bos_id and 8 <= len(sequence) <= 64 for sequence in sequences)
    assert all(sequence.dtype == np.int32 for sequence in sequences)


def test_a_reply_follows_the_template(metadata):
    tokenizer = Tokenizer.from_gguf(metadata)
    sequences = [sequence.tolist() for sequence in calibration_sequences(metadata)]
    assistant = tokenizer.encode("<｜Assistant｜>", parse_special=True)
    assert assistant[0] in sequences[0]
    assert "<think>" in tokenizer.decode(sequences[0])
    assert any(tokenizer.vocabulary.eos_id in sequence for sequence in sequences)


def test_a_file_is_read_instead_with_its_special_tokens(metadata, tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("<｜User｜>How many apples are left?<｜Assistant｜>There are seven apples left over.")
    tokenizer = Tokenizer.from_gguf(metadata)
    (sequence,) = calibration_sequences(metadata, [file])
    wanted = tokenizer.encode(file.read_text(), add_bos=True, parse_special=True)
    assert sequence.tolist() == wanted


@pytest.mark.parametrize(("content", "match"), [(b"", "no sequence of 8 tokens"), (b"\xff\xfe\x00", "text in UTF-8")])
def test_files_without_text_are_refused(metadata, tmp_path, content, match):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match=match):
        calibration_sequences(metadata, [tmp_path / "file"])


def test_a_missing_file_is_refused(metadata, tmp_path):
    with pytest.raises(InputError, match=r"none\.txt: cannot be read"):
        calibration_sequences(metadata, [tmp_path / "none.txt"])


def test_a_part_is_held_out_of_a_long_text():
    sequences = [np.array([number]) for number in range(20)]
    kept, held_out = hold_out(sequences)
    assert [int(text[0]) for text in held_out] == [0, 8, 16]
    assert sorted(int(text[0]) for text in (*kept, *held_out)) == list(range(20))


def test_a_short_text_is_used_whole():
    sequences = [np.array([number]) for number in range(15)]
    assert hold_out(sequences) == (sequences, [])


def test_a_users_text_is_three_quarters_of_a_blend(metadata):
    own = [np.full(200, 7, np.int32)] * 30
    blend = with_packaged(own, metadata)
    places = [number for number, sequence in enumerate(blend) if sequence is own[0]]
    assert len(places) == len(own)
    packaged = sum(map(len, blend)) - 200 * 30
    assert 0.25 <= packaged / sum(map(len, blend)) < 0.3  # the last sequence is whole
    assert max(np.diff(places)) <= len(blend) / 8  # evenly: probes read the first sequences


def test_a_short_text_is_not_outweighed(metadata):
    assert sorted(map(len, with_packaged([np.full(60, 7, np.int32)], metadata))) == [20, 60]
