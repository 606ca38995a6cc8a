"""Options of an export are stated in one place."""

from dataclasses import fields

import pytest

from sprat.export.options import ExportKeywords, ExportOptions


def test_the_keywords_are_the_fields():
    assert list(ExportKeywords.__annotations__) == [field.name for field in fields(ExportOptions)]
    assert all(
        ExportKeywords.__annotations__[field.name].__forward_arg__ == field.type for field in fields(ExportOptions)
    )


def test_an_unknown_keyword_names_the_function_and_the_nearest_one():
    with pytest.raises(TypeError, match=r"export\(\): unknown keyword 'quantization'; did you mean 'quant'\?"):
        ExportOptions.of({"quantization": "int4"})
