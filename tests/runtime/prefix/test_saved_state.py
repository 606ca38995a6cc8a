"""The file format: every damage and every other model is an error, and nothing is half written."""

import hashlib
import json
import struct
import tracemalloc

import numpy as np
import pytest
from native_kernels import needs_native

from sprat.errors import InputError, PromptError, SavedStateError
from sprat.runtime.arch.attention import GroupedAttentionSpec, LatentAttentionSpec
from sprat.runtime.cache import KVCache, LatentCache
from sprat.runtime.prefix.entries import Entries
from sprat.runtime.prefix.saved_state import StateIdentity, read_state, read_tokens, write_state

GROUPED = GroupedAttentionSpec(n_heads=4, n_kv_heads=2, head_dim=4)
LATENT = LatentAttentionSpec(
    n_heads=4, q_lora_rank=None, kv_lora_rank=6, qk_nope_head_dim=4, qk_rope_head_dim=2, v_head_dim=4
)
TOKENS = [3, 1, 4, 1, 5]
MESSAGES = [{"role": "user", "content": "Grüße 😀"}]


def filled(cache):
    rng = np.random.default_rng(3)
    rows = cache.empty_rows(len(TOKENS))
    for plane in rows:
        plane[...] = rng.integers(0, 60, plane.shape)
    cache.append_rows(rows)
    return cache


def identity(cache, **fields):
    return StateIdentity(**{"model": "m" * 64, "producer": "native, ABI 3", "geometry": cache.geometry, **fields})


@pytest.fixture
def cache():
    return filled(KVCache(GROUPED.planes, 3, 8, "f16"))


@pytest.fixture
def path(tmp_path, cache):
    write_state(tmp_path / "state", identity(cache), TOKENS, [Entries(cache.rows(0, 5))], MESSAGES)
    return tmp_path / "state"


@pytest.mark.parametrize("storage", ["f32", "f16", "int8"])
@pytest.mark.parametrize("kind", [(KVCache, GROUPED), (LatentCache, LATENT)])
def test_what_is_written_is_read(tmp_path, kind, storage):
    cls, spec = kind
    cache = filled(cls(spec.planes, 3, 8, storage))
    write_state(tmp_path / "state", identity(cache), TOKENS, [Entries(cache.rows(0, 5))], MESSAGES)
    tokens, entries, messages = read_state(tmp_path / "state", identity(cache), cache)
    assert (tokens.tolist(), messages) == (TOKENS, MESSAGES)
    for plane, expected in zip(entries.rows, cache.rows(0, 5), strict=True):
        np.testing.assert_array_equal(plane, expected)
    assert read_tokens(tmp_path / "state", identity(cache)).tolist() == TOKENS
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_sections_lie_on_pages(path, cache):
    """So that a program may map them: 4096 bytes of header, then the tokens."""
    data = path.read_bytes()
    assert np.frombuffer(data, "<i4", 5, offset=4096).tolist() == TOKENS
    keys = np.frombuffer(data, "<f2", cache.rows(0, 5)[0].size, offset=8192)
    np.testing.assert_array_equal(keys, cache.rows(0, 5)[0].ravel())


@needs_native
def test_entries_are_written_and_read_without_a_copy(tmp_path):
    cache = KVCache(GROUPED.planes, 16, 20_000, "f16")
    cache.advance(20_000)
    tracemalloc.start()
    try:
        write_state(tmp_path / "state", identity(cache), range(20_000), [Entries(cache.views(0, 20_000))])
        read_state(tmp_path / "state", identity(cache), cache)
        assert tracemalloc.get_traced_memory()[1] < cache.nbytes / 4
    finally:
        tracemalloc.stop()


def test_a_part_that_was_split_is_written_in_one(path, cache):
    whole = path.read_bytes()
    pieces = [Entries(cache.rows(*span)) for span in ((0, 2), (2, 3), (3, 5))]
    write_state(path, identity(cache), TOKENS, pieces, MESSAGES)
    assert path.read_bytes() == whole


def test_more_tokens_than_wanted_are_refused_before_they_are_read(path, cache):
    path.write_bytes(path.read_bytes()[:4096] + bytes(path.stat().st_size - 4096))
    with pytest.raises(PromptError, match="holds 5 tokens, the context has room for 4"):
        read_state(path, identity(cache), cache, most_tokens=4)


@pytest.mark.parametrize("field", ["model", "producer", "geometry"])
def test_another_model_backend_or_cache_is_refused_and_named(path, cache, field):
    with pytest.raises(SavedStateError, match=f"state: saved with another {field}"):
        read_state(path, identity(cache, **{field: "another"}), cache)


def test_every_changed_byte_is_noticed(path, cache):
    """But for zeros between the sections, which nothing reads."""
    whole, unnoticed = path.read_bytes(), 0
    for at in [*range(0, 300, 7), *range(4090, len(whole), 211)]:
        changed = bytearray(whole)
        changed[at] ^= 0x40
        path.write_bytes(changed)
        try:
            tokens, entries, messages = read_state(path, identity(cache), cache)
        except SavedStateError:
            continue
        assert whole[at] == 0
        assert (tokens.tolist(), messages) == (TOKENS, MESSAGES)
        np.testing.assert_array_equal(entries.rows[0], cache.rows(0, 5)[0])
        unnoticed += 1
    assert unnoticed < len(range(4090, len(whole), 211))


@pytest.mark.parametrize("n", [0, 5, 47, 48, 100, 4096, 8192, -1])
def test_a_truncated_file_is_refused(path, cache, n):
    path.write_bytes(path.read_bytes()[:n])
    with pytest.raises(SavedStateError, match="state"):
        read_state(path, identity(cache), cache)


def test_more_bytes_are_refused(path, cache):
    path.write_bytes(path.read_bytes() + bytes(10))
    with pytest.raises(SavedStateError, match="damaged"):
        read_state(path, identity(cache), cache)


def with_header(path, change):
    """The file with another header, whose hash fits."""
    data = path.read_bytes()
    header = json.loads(data[48 : data.index(b"\0", 48)])
    change(header)
    packed = json.dumps(header).encode()
    begin = struct.pack("<8sII32s", b"SPRATSAV", 1, len(packed), hashlib.sha256(packed).digest()) + packed
    path.write_bytes(begin + bytes(-len(begin) % 4096) + data[4096:])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda header: header["sections"].pop(), "sections take"),
        (lambda header: header.update(sections=[]), "without a size"),
        (lambda header: header["sections"][0].update(nbytes=-4), "without a size"),
        (lambda header: header["sections"][0].update(nbytes=18), "token ids|sections take"),
        (lambda header: header["sections"][0].update(nbytes=4), "SHA-256"),
        (lambda header: header["sections"][1].update(nbytes=2**62), "sections take"),
        (lambda header: header.update(messages="hello"), "a header with errors"),
        (lambda header: header.pop("identity"), "a header with errors"),
        (lambda header: header["sections"].append(header["sections"].pop(1)), "SHA-256|another size"),
    ],
)
def test_a_header_that_lies_is_refused(path, cache, change, named):
    with_header(path, change)
    with pytest.raises(SavedStateError, match=named):
        read_state(path, identity(cache), cache)


def test_a_later_version_is_refused(path, cache):
    data = bytearray(path.read_bytes())
    data[8] = 2
    path.write_bytes(data)
    with pytest.raises(SavedStateError, match="version 2 of the format, expected 1"):
        read_state(path, identity(cache), cache)


def test_rows_of_fewer_tokens_are_refused(tmp_path, cache):
    write_state(tmp_path / "state", identity(cache), TOKENS, [Entries(cache.rows(0, 4))])
    with pytest.raises(SavedStateError, match="rows of another size than 5 tokens have"):
        read_state(tmp_path / "state", identity(cache), cache)


def test_entries_that_are_nan_are_refused(tmp_path, cache):
    rows = cache.rows(0, 5)
    rows[1][-1, -1, -1, -1] = np.nan
    write_state(tmp_path / "state", identity(cache), TOKENS, [Entries(rows)])
    with pytest.raises(SavedStateError, match="NaN or Inf"):
        read_state(tmp_path / "state", identity(cache), cache)


def test_a_message_that_json_cannot_hold_is_an_error(tmp_path, cache):
    with pytest.raises(InputError, match="not what JSON can hold"):
        write_state(tmp_path / "state", identity(cache), TOKENS, [Entries(cache.rows(0, 5))], [{"role": object()}])
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_is_not_opened(tmp_path, cache):
    (tmp_path / "state").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(SavedStateError, match="no saved state"):
        read_state(tmp_path / "state", identity(cache), cache)
