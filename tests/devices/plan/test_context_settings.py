"""What a plan tries of a llama.cpp context, and what its settings take."""

from sprat.devices.plan.context_settings import NO_WISHES, ContextSettings, ContextWishes


def tried(wishes, **having):
    return [(each.cache, each.flash_attention, each.batch) for each in wishes.to_try(**having)]


def test_the_best_quality_and_the_longest_pass_come_first():
    found = tried(NO_WISHES)
    assert found[0] == ("f16", True, 512)
    assert found == [(cache, True, batch) for cache in ("f16", "int8") for batch in (512, 256, 128, 64)]


def test_integers_are_tried_only_with_flash_attention():
    assert {(cache, flash) for cache, flash, _ in tried(NO_WISHES, flash=("f16",))} == {("f16", True)}
    assert {(cache, flash) for cache, flash, _ in tried(NO_WISHES, flash=())} == {("f16", False)}
    assert tried(ContextWishes(cache="int4", flash_attention=False)) == []


def test_what_is_given_is_all_that_is_tried():
    assert tried(ContextWishes(cache="int4", batch=96), flash=("int4",)) == [("int4", True, 96)]
    assert NO_WISHES.on_cpu(256) == ContextSettings(batch=256)
    assert ContextWishes(cache="int8", batch=512).on_cpu(256) == ContextSettings(cache="int8", batch=256)


def test_scores_take_memory_only_without_flash_attention():
    assert ContextSettings(flash_attention=True).scores_bytes(32, 4096) == 0
    assert ContextSettings(flash_attention=False, batch=64).scores_bytes(32, 4096) == 4 * 32 * 64 * 4096
    assert ContextSettings(cache="int8").cache_bytes(64) == 34
    assert ContextSettings(cache="int4", flash_attention=True, batch=8).text() == (
        "int4 cache, flash attention, 8 prompt tokens a pass"
    )
