"""Options of loading are checked before a file is opened, and stated in one place."""

from dataclasses import fields

import pytest

import sprat
from sprat.errors import InputError
from sprat.runtime.engine import Engine
from sprat.runtime.loading.options import LoadKeywords, LoadOptions


def test_the_keywords_are_the_fields():
    assert list(LoadKeywords.__annotations__) == [field.name for field in fields(LoadOptions)]
    assert all(LoadKeywords.__annotations__[field.name].__forward_arg__ == field.type for field in fields(LoadOptions))


@pytest.mark.parametrize("value", ["no", 1, None])
@pytest.mark.parametrize("load", [Engine.load, sprat.load])
def test_a_flag_that_is_no_bool_is_an_error(load, value):
    """Any text would count as True."""
    with pytest.raises(InputError, match=rf"exact is {value!r} .*, expected bool"):
        load("no-such-file", force=True, exact=value)


@pytest.mark.parametrize("cache", ["q4", "", 8, b"f16", "F16"])
def test_an_unknown_cache_format_is_an_error(cache):
    with pytest.raises(InputError, match="expected one of f32, f16, int8"):
        LoadOptions(cache=cache)


@pytest.mark.parametrize("cache", [None, "f32", "f16", "int8"])
def test_known_cache_formats_are_accepted(cache):
    assert LoadOptions(cache=cache).cache == cache


def test_an_unknown_keyword_names_the_function_and_the_nearest_one():
    with pytest.raises(TypeError, match=r"Engine.load\(\): unknown keyword 'n_ctx'; did you mean 'context'\?"):
        LoadOptions.of("Engine.load()", {"n_ctx": 512})
