"""Both caches: append, truncate, capacity, storages, save and restore."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from published_configs import PUBLISHED

from sprat.errors import PromptError
from sprat.runtime.arch.attention import GroupedAttentionSpec, LatentAttentionSpec
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.cache import EntryLayout, KVCache, LatentCache, to_float32

N_LAYERS = 3
LATENT = LatentAttentionSpec(
    n_heads=4, q_lora_rank=None, kv_lora_rank=6, qk_nope_head_dim=4, qk_rope_head_dim=2, v_head_dim=4
)
GROUPED = GroupedAttentionSpec(n_heads=4, n_kv_heads=2, head_dim=4)


def new_cache(kind, capacity=8, storage="f32"):
    if kind == "kv":
        return KVCache(GROUPED.planes, N_LAYERS, capacity, storage)
    return LatentCache(LATENT.planes, N_LAYERS, capacity, storage)


def fill(cache, n, seed=0):
    """Append ``n`` tokens to every layer; returns what ``append`` returned for each layer."""
    rng = np.random.default_rng(seed)
    shapes = [(n, 2, 4)] * 2 if isinstance(cache, KVCache) else [(n, 6), (n, 2)]
    appended = [
        cache.append(layer, *(rng.normal(size=s).astype(np.float32) for s in shapes)) for layer in range(N_LAYERS)
    ]
    cache.advance(n)
    return appended


def rows_of(entries):
    if hasattr(entries, "keys"):
        return np.concatenate([to_float32(entries.keys), to_float32(entries.values)], axis=-1)
    return to_float32(entries)[None]


def resident_bytes():
    n_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return n_pages * os.sysconf("SC_PAGE_SIZE")


both = pytest.mark.parametrize("kind", ["kv", "latent"])


def test_keys_and_values_are_heads_first():
    rng = np.random.default_rng(0)
    keys, values = rng.normal(size=(2, 3, 2, 4)).astype(np.float32)
    rows = new_cache("kv").append(1, keys, values)
    np.testing.assert_array_equal(rows.keys, keys.swapaxes(0, 1))
    np.testing.assert_array_equal(rows.values, values.swapaxes(0, 1))


def test_a_latent_entry_is_the_latent_then_the_rope_key():
    latents, rope_keys = np.arange(18, dtype=np.float32).reshape(3, 6), np.full((3, 2), -1, np.float32)
    rows = new_cache("latent").append(0, latents, rope_keys)
    np.testing.assert_array_equal(rows, np.hstack([latents, rope_keys]))


def test_a_token_of_v2_lite_takes_576_elements_per_layer():
    spec = spec_from_config(PUBLISHED["DeepSeek-V2-Lite"])
    assert LatentCache(spec.attention.planes, spec.n_layers, 10, "f16").nbytes == 10 * 27 * (512 + 64) * 2


@both
def test_entries_of_earlier_tokens_come_first(kind):
    cache = new_cache(kind)
    first, second = fill(cache, 2, seed=1), fill(cache, 3, seed=2)
    assert (cache.length, cache.capacity) == (5, 8)
    for before, after in zip(first, second, strict=True):
        assert rows_of(after).shape[1] == 5
        np.testing.assert_array_equal(rows_of(after)[:, :2], rows_of(before))


@both
def test_entries_that_were_not_counted_are_overwritten(kind):
    cache = new_cache(kind)
    fill(cache, 2)
    cache.append(0, *((np.ones((1, 2, 4), np.float32),) * 2 if kind == "kv" else (np.ones((1, 6)), np.ones((1, 2)))))
    assert cache.length == 2  # as after a forward pass that failed
    np.testing.assert_array_equal(
        rows_of(fill(cache, 1, seed=3)[0])[:, 2:], rows_of(fill(new_cache(kind), 1, seed=3)[0])
    )


@both
def test_truncated_tokens_are_overwritten(kind):
    cache, straight = new_cache(kind), new_cache(kind)
    fill(cache, 3, seed=1)
    fill(cache, 4, seed=2)
    cache.truncate(3)
    fill(straight, 3, seed=1)
    np.testing.assert_array_equal(rows_of(fill(cache, 2, seed=5)[2]), rows_of(fill(straight, 2, seed=5)[2]))


@both
@pytest.mark.parametrize("length", [-1, 3])
def test_truncating_to_an_invalid_length_is_an_error(kind, length):
    cache = new_cache(kind)
    fill(cache, 2)
    with pytest.raises(PromptError, match=f"holds 2 tokens and cannot be truncated to {length}"):
        cache.truncate(length)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_the_first_token_allocates_a_page_per_head_not_the_whole_cache():
    cache = new_cache("kv", capacity=1 << 16)  # a head's rows take 1 MiB, 12 MiB in all
    before = resident_bytes()
    fill(cache, 1)
    assert resident_bytes() - before < cache.nbytes // 8


@both
def test_more_tokens_than_the_capacity_are_an_error(kind):
    cache = new_cache(kind, capacity=4)
    fill(cache, 3)
    with pytest.raises(PromptError, match="holds 3 of 4 tokens and 2 more do not fit"):
        cache.reserve(2)


@both
def test_f16_halves_the_bytes_and_rounds_to_nearest(kind):
    full, half = new_cache(kind), new_cache(kind, storage="f16")
    assert half.nbytes * 2 == full.nbytes
    for exact, rounded in zip(fill(full, 4), fill(half, 4), strict=True):
        np.testing.assert_array_equal(rows_of(exact).astype(np.float16), rows_of(rounded))


def test_int8_latents_share_scales_of_128_and_their_rope_keys_are_float16():
    spec = spec_from_config(PUBLISHED["DeepSeek-V2-Lite"])
    cache = LatentCache(spec.attention.planes, 1, 4, "int8")
    assert cache.nbytes == 4 * (512 + 4 * (2 + 2) + 64 * 2)  # 656 bytes per token and layer; 1152 in f16
    rng = np.random.default_rng(0)
    latents, rope_keys = (rng.normal(size=(3, n)).astype(np.float32) for n in (512, 64))
    rows = to_float32(cache.append(0, latents, rope_keys))
    steps = np.abs(latents.reshape(3, 4, 128)).max(axis=-1, keepdims=True) / 127
    errors = (rows[:, :512] - latents).reshape(3, 4, 128)
    assert (np.abs(errors) <= 0.5 * steps + 127 * steps * 2**-11).all()  # rounding of code and float16 scale
    np.testing.assert_array_equal(rows[:, 512:], rope_keys.astype(np.float16))


def test_an_int8_row_has_the_sums_of_its_codes():
    layout = EntryLayout("int8", 70, n_exact=6, group=32)
    stored = layout.store(np.random.default_rng(0).normal(size=(5, 70)).astype(np.float32))
    codes, sums = stored[:, :64].view(np.int8).reshape(5, 2, 32), np.ascontiguousarray(stored[:, 68:72]).view(np.int16)
    np.testing.assert_array_equal(codes.sum(axis=-1, dtype=np.int16), sums)


@both
def test_int8_rounds_to_a_127th_of_the_absmax_of_32_elements(kind):
    for exact, rounded in zip(fill(new_cache(kind), 4), fill(new_cache(kind, storage="int8"), 4), strict=True):
        np.testing.assert_allclose(rows_of(rounded), rows_of(exact), atol=np.abs(rows_of(exact)).max() / 200)


@both
@pytest.mark.parametrize("storage", ["f32", "f16", "int8"])
def test_copied_tokens_have_the_same_bits_in_a_cache_of_any_capacity(kind, storage):
    cache, other = new_cache(kind, storage=storage), new_cache(kind, capacity=20, storage=storage)
    fill(cache, 5)
    other.append_rows(cache.rows(0, 2))
    other.append_rows(cache.rows(2, 5))
    assert other.length == 5
    for straight, restored in zip(fill(cache, 1, seed=9), fill(other, 1, seed=9), strict=True):
        np.testing.assert_array_equal(rows_of(straight), rows_of(restored))


@both
def test_rows_are_copies(kind):
    cache = new_cache(kind)
    fill(cache, 3)
    rows = cache.rows(1, 3)
    before = [plane.copy() for plane in rows]
    cache.truncate(1)
    fill(cache, 2, seed=5)
    for plane, then in zip(rows, before, strict=True):
        np.testing.assert_array_equal(plane, then)


@both
def test_tokens_that_do_not_fit_are_not_copied_and_the_cache_keeps_its_own(kind):
    cache, small = new_cache(kind), new_cache(kind, capacity=4)
    fill(cache, 5)
    fill(small, 3, seed=7)
    before = small.rows(0, 3)
    with pytest.raises(PromptError, match="the cache holds 3 of 4 tokens and 5 more do not fit"):
        small.append_rows(cache.rows(0, 5))
    assert small.length == 3
    for plane, then in zip(small.rows(0, 3), before, strict=True):
        np.testing.assert_array_equal(plane, then)


@both
@pytest.mark.parametrize("storage", ["f32", "f16", "int8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_entries_that_are_nan_or_inf_are_noticed(kind, storage, value):
    """In the last plane, layer and token, and of a latent in the part that int8 stores in float16."""
    bad = new_cache(kind, storage=storage)
    shapes = [(1, 2, 4)] * 2 if kind == "kv" else [(1, 6), (1, 2)]
    for layer in range(N_LAYERS):
        arrays = [np.ones(shape, np.float32) for shape in shapes]
        arrays[-1][..., -1] = value if layer == N_LAYERS - 1 else 1
        with np.errstate(invalid="ignore"):
            bad.append(layer, *arrays)
    bad.advance(1)
    good = new_cache(kind, storage=storage)
    fill(good, 2)
    last = len(bad.rows(0, 1)) - 1
    assert not bad.is_finite(last, bad.rows(0, 1)[last])
    assert all(good.is_finite(plane, rows) for plane, rows in enumerate(good.rows(0, 2)))


def test_of_every_float16_it_is_known_whether_it_is_finite():
    cache = LatentCache(LATENT.planes, N_LAYERS, 8, "f16")
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    assert [cache.is_finite(0, value) for value in every.reshape(-1, 1)] == np.isfinite(every).tolist()


@both
def test_the_geometry_tells_caches_apart(kind):
    caches = [new_cache(kind, storage=storage) for storage in ("f32", "f16", "int8")]
    others = [KVCache(GROUPED.planes, N_LAYERS + 1, 8), LatentCache(LATENT.planes, N_LAYERS + 1, 8)]
    assert len({cache.geometry for cache in (*caches, *others)}) == 5
    assert new_cache(kind, capacity=99).geometry == new_cache(kind).geometry
    assert new_cache(kind, capacity=10).nbytes == 10 * new_cache(kind).bytes_per_token
