"""Wrong keywords and wrong types in calls of the public functions."""

from pathlib import Path

import pytest

import sprat
from sprat.keywords import checks_keywords, listed, listed_counts

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


def test_one_text_is_a_list_of_one():
    assert listed("rpi5-8gb", "devices") == ["rpi5-8gb"]
    assert listed(Path("a"), "results") == [Path("a")]
    assert listed(("a", Path("b")), "results") == ["a", Path("b")]
    assert listed((), "lora") == []
    assert listed_counts(512, "n_prompt") == [512]
    assert listed_counts([0, 4096], "depths") == [0, 4096]


@pytest.mark.parametrize("value", [5, None, [5], b"a", {"a": 1}, [None]])
def test_what_is_no_list_of_texts_is_an_input_error(value):
    with pytest.raises(sprat.InputError, match=r"^lora is .*, expected text, or a list of texts"):
        listed(value, "lora")


def test_one_device_one_format_and_one_rule_need_no_list(tmp_path):
    assert [plan.profile.name for plan in sprat.plan("demo", devices="rpi5-8gb")] == ["rpi5-8gb"]
    result = sprat.export("demo", tmp_path / "out", formats="gguf", tensor_rules="ffn_down_exps=q5_0")
    assert result.bundle.manifest.recipe == "int4 ffn_down_exps=q5_0"
    with pytest.raises(sprat.InputError, match="n_prompt is 'much', expected an integer"):
        sprat.bench("demo", n_prompt="much")
