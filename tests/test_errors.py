"""The tree in the module docstring matches the classes, and the message for an unknown name proposes the nearest."""

import inspect
import re

import pytest

from sprat import errors


def drawn_tree():
    """Class name -> parent, parsed from the tree in the module docstring."""
    stack, found = {}, {}
    for line in errors.__doc__.splitlines():
        match = re.match(r"^(\s*)([│├└─ ]*)(\w+(?:Error))\b", line)
        if match:
            depth = len(match[2])
            stack[depth] = match[3]
            found[match[3]] = stack.get(depth - 4)
    return found


def test_the_tree_in_the_docstring_matches_the_classes():
    classes = {name: cls for name, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)}
    assert drawn_tree() == {
        name: None if cls is errors.SpratError else cls.__bases__[0].__name__ for name, cls in classes.items()
    }


def test_a_message_that_names_a_million_values_is_short():
    text = str(errors.InputError(f"seed is {'9' * 10**6}, expected an integer"))
    assert len(text) < 8000
    assert text.startswith("seed is 999")
    assert text.endswith("999, expected an integer")


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name.endswith("Error")])
def test_every_error_is_a_sprat_error(name):
    assert issubclass(getattr(errors, name), errors.SpratError)


def test_input_errors_are_value_errors():
    assert issubclass(errors.ConfigError, ValueError)


def test_unknown_name_proposes_the_nearest():
    message = errors.unknown_name("block format", "q4-0", ["Q8_0", "q4_0"])
    assert message == "unknown block format 'q4-0'; did you mean 'q4_0'? (known: Q8_0, q4_0)"


def test_unknown_name_without_a_near_match_lists_all_names():
    assert errors.unknown_name("device", "zzz", ["b", "a"]) == "unknown device 'zzz' (known: a, b)"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("Q4_K_M", "q4_k"), ("pi5", "rpi5-8gb"), ("ORIN", "jetson-orin"), ("qwen2forcausallm", "Qwen2ForCausalLM")],
)
def test_the_nearest_name_is_found_in_any_case_and_by_a_part(name, nearest):
    known = ["q4_k", "rpi5-8gb", "jetson-orin", "Qwen2ForCausalLM"]
    assert f"did you mean {nearest!r}?" in errors.unknown_name("thing", name, known)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("pi5", "'rpi5-4gb' or 'rpi5-8gb'"),
        ("raspberrypi5", "'rpi5-4gb' or 'rpi5-8gb'"),
        ("Raspberry Pi 5 4GB", "'rpi5-4gb'"),
        ("rpi-5-8gb", "'rpi5-8gb'"),
        ("orin", "'jetson-orin-nano', 'jetson-orin-nx' or 'jetson-orin'"),
    ],
)
def test_all_names_that_are_equally_near_are_proposed(name, nearest):
    known = ["rpi5-8gb", "rpi5-4gb", "jetson-orin-nano", "jetson-orin-nx", "jetson-orin"]
    titles = {"Raspberry Pi 5, 8 GB": "rpi5-8gb", "Raspberry Pi 5, 4 GB": "rpi5-4gb"}
    message = errors.unknown_name("device", name, known, titles)
    proposed = set(re.findall(r"'([\w-]+)'", message.split("; did you mean ")[1].split("? (")[0]))
    assert proposed == set(re.findall(r"'([\w-]+)'", nearest))


def test_an_ending_that_all_names_share_makes_no_name_near():
    known = ["Qwen2ForCausalLM", "LlamaForCausalLM", "DeepseekV3ForCausalLM"]
    assert "did you mean" not in errors.unknown_name("architecture", "Gemma2ForCausalLM", known)
    assert "'DeepseekV3ForCausalLM'?" in errors.unknown_name("architecture", "DeepSeekV3ForCausalLM", known)


def test_a_name_that_is_no_text_is_shown():
    assert errors.unknown_name("backend", 3, ["b", "a"]) == "backend is 3, expected a string (known: a, b)"


@pytest.mark.parametrize("name", ["", "x", "serve", "zz9"])
def test_a_name_that_resembles_none_gets_no_suggestion(name):
    assert "did you mean" not in errors.unknown_name("thing", name, ["q4_k", "rpi5-8gb", "xylophone"])
