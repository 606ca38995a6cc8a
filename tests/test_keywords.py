"""Wrong keywords and wrong types in calls of the public functions."""

import pytest

import sprat
from sprat.keywords import checks_keywords

PUBLIC = [
    sprat.load,
    sprat.plan,
    sprat.inspect,
    sprat.quantize,
    sprat.verify,
    sprat.bench,
    sprat.report,
    sprat.evaluate,
]


@pytest.mark.parametrize("function", [*PUBLIC, sprat.Engine.load], ids=lambda function: function.__qualname__)
def test_every_public_function_names_itself_and_the_nearest_keyword(function):
    with pytest.raises(TypeError, match=rf"^{function.__qualname__}\(\): unknown keyword 'devicee'"):
        function("x", devicee=1)


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("n_ctx", "context"), ("num_ctx", "context"), ("contxt", "context"), ("cach", "cache")]
)
def test_names_of_other_libraries_and_typos_get_a_proposal(wrong, nearest):
    with pytest.raises(TypeError, match=f"did you mean '{nearest}'"):
        sprat.Engine.load("x", **{wrong: 1})


def test_a_checked_function_keeps_its_signature_and_result():
    @checks_keywords
    def scale(value: int, *, by: int = 2) -> int:
        """Multiply."""
        return value * by

    assert scale(3, by=5) == 15
    assert (scale.__name__, scale.__doc__) == ("scale", "Multiply.")


@pytest.mark.parametrize("path", [None, 5, b"model.gguf", [], "", "a\0b"])
@pytest.mark.parametrize("function", [sprat.load, sprat.Engine.load, sprat.inspect, sprat.plan])
def test_a_model_that_is_no_path_is_an_input_error(function, path):
    with pytest.raises(sprat.InputError, match=r"^(path|model) is "):
        function(path)


@pytest.mark.parametrize("out", [None, 5, b"out", "", "a\0b"])
@pytest.mark.parametrize("function", [sprat.export, sprat.quantize])
def test_a_target_that_is_no_path_is_an_input_error(function, out):
    with pytest.raises(sprat.InputError, match=r"^out is "):
        function("demo" if function is sprat.export else __file__, out)
