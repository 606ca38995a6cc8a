import json
import threading
from pathlib import Path

import pytest

from sprat.errors import PromptError, TemplateError
from sprat.runtime.chat import budget as template_budget
from sprat.runtime.chat.template import ChatTemplate

DATA = Path(__file__).parents[2] / "data" / "chat"
GOLDEN = json.loads((DATA / "golden.json").read_text(encoding="utf-8"))
EXPRESSIONS = json.loads((DATA / "expressions.json").read_text(encoding="utf-8"))
HI = [{"role": "user", "content": "hi"}]


def render(source, messages=HI, **variables):
    return ChatTemplate(source, {"bos_token": "<B>", "eos_token": "<E>"}).render(messages, **variables)


def case_name(case):
    what = case.get("template", case.get("source", ""))
    return ", ".join(map(str, [what[:60], case["conversation"], *case.get("variables", {}).values()]))[:100]


def assert_renders(source, case, conversations, **variables):
    if case["rendered"] is None:
        with pytest.raises(TemplateError):
            render(source, conversations[case["conversation"]], **variables)
    else:
        assert render(source, conversations[case["conversation"]], **variables) == case["rendered"]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=case_name)
def test_a_template_renders_as_in_transformers(case):
    source = (DATA / f"{case['template']}.jinja").read_text(encoding="utf-8")
    asked = case["add_generation_prompt"]
    assert_renders(source, case, GOLDEN["conversations"], add_generation_prompt=asked, **case["variables"])


@pytest.mark.parametrize("case", EXPRESSIONS["cases"], ids=case_name)
def test_an_expression_renders_as_in_transformers(case):
    assert_renders(case["source"], case, EXPRESSIONS["conversations"])


def test_the_golden_file_covers_every_template():
    paths = {str(path.relative_to(DATA).with_suffix("")) for path in DATA.rglob("*.jinja")}
    assert {case["template"] for case in GOLDEN["cases"]} == paths
    assert {case["source"] for case in EXPRESSIONS["cases"]} == set((DATA / "expressions.txt").read_text().splitlines())


ENDLESS = {
    "nested loops": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "a loop without iterations": "{% for i in range(9999) %}{% for j in range(9999) if 0 %}{% endfor %}{% endfor %}",
    "a macro that calls itself twice": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "a recursive loop": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "a long range": "{% for i in range(1000000000) %}{% endfor %}",
    "text in a loop": "{% for i in range(100000) %}" + "x" * 50_000 + "{% endfor %}",
    "text kept in a variable": "{% set s %}{% for i in range(100000) %}" + "x" * 50_000 + "{% endfor %}{% endset %}",
    "a value written many times": "{% set s = 'a' * 2000000 %}{% for i in range(100000) %}{{ s }}{% endfor %}",
}
TOO_LARGE = {
    "a string times a number": "{{ 'a' * 10000000000 }}",
    "a number times a list": "{{ 10000000000 * [1] }}",
    "doubling with +": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "doubling with ~": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "lists of lists": "{% set n = namespace(s=1) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}",
    "dicts of dicts": "{% set n = namespace(s=1) %}{% for i in range(60) %}{% set n.s = {1: n.s, 2: n.s}%}{% endfor %}",
    "tuples of tuples": "{% set n = namespace(s=1) %}{% for i in range(60) %}{% set n.s = (n.s, n.s) %}{% endfor %}",
    "a long separator": "{{ range(100000) | join('a' * 1000000) }}",
    "a long separator in a method": "{{ ('a' * 1000000).join(['', ''] * 50000) }}",
    "replacing each character": "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
    "replacing each character in a method": "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}",
    "a deep indent": "{{ [1] | tojson(indent=1000000000) }}",
    "a long JSON separator": "{{ [1, 2] | tojson(separators=('a' * 1000, ':')) }}",
    "a growing number": "{% set n = namespace(x=10) %}{% for i in range(40) %}{% set n.x = n.x * n.x %}{% endfor %}",
}
FORBIDDEN = {
    "the class of a string": "{{ ''.__class__.__mro__ }}",
    "a class by index": "{{ ''['__class__'].__mro__ }}",
    "the globals of a function": "{{ raise_exception.__globals__.x }}",
    "Jinja's lipsum": "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "Jinja's cycler": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "the template object": "{{ self.__init__.__globals__ }}",
    "the filter attr": "{{ ('' | attr('__class__')).__mro__ }}",
    "str.format": "{{ '{0.__class__.__mro__}'.format(1) }}",
    "str.ljust": "{{ 'a'.ljust(1000000000) }}",
    "the operator %": "{{ '%1000000000d' % 1 }}",
    "the operator **": "{{ 9 ** 999999999 }}",
    "the filter center": "{{ 'a' | center(1000000000) }}",
    "another file": "{% include 'x' %}",
    "a module": "{% import 'os' as os %}",
    "a parent": "{% extends 'x' %}",
    "changing a message": "{{ messages[0].update(role='system') }}",
    "changing the messages": "{{ messages.append(1) }}",
}
INVALID = {
    "bad syntax": "{% if %}",
    "a block that is not closed": "{% for x in messages %}",
    "deeply nested parentheses": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "deeply nested loops": "{% for a in [1] %}" * 3000,
    "an undefined name": "{{ nothing.at.all }}",
    "a missing key": "{{ messages[0]['content'] + messages[0]['name'] }}",
    "division by zero": "{{ 1 / 0 }}",
    "a call of a number": "{{ 1() }}",
    "a filter on the wrong type": "{{ 1 | dictsort }}",
    "a source that is too long": "x" * 300_000,
}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS)
def test_an_endless_template_is_stopped(source):
    with pytest.raises(TemplateError, match=r"stopped|Range too big"):
        render(source)


@pytest.mark.parametrize("source", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_value_that_is_too_large_is_not_made(source):
    with pytest.raises(TemplateError, match="more than 2097152 characters"):
        render(source)


@pytest.mark.parametrize("source", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_template_cannot_leave_the_sandbox(source):
    with pytest.raises(TemplateError):
        render(source)


@pytest.mark.parametrize("source", INVALID.values(), ids=INVALID)
def test_an_invalid_template_is_a_template_error(source):
    with pytest.raises(TemplateError, match=r"^the chat template .+[^.]$"):
        render(source)


def test_the_limit_on_cpu_time_stops_what_the_units_allow(monkeypatch):
    monkeypatch.setattr(template_budget, "_UNITS", 1 << 60)
    monkeypatch.setattr(template_budget, "_SECONDS", 0.05)
    with pytest.raises(TemplateError, match="stopped"):
        render(ENDLESS["nested loops"])


def test_a_long_conversation_is_within_the_budget():
    source = (DATA / "deepseek-r1.jinja").read_text(encoding="utf-8")
    messages = [{"role": role, "content": "word " * 400} for _ in range(250) for role in ("user", "assistant")]
    assert len(render(source, messages)) > 1_000_000


def test_templates_render_in_several_threads_at_once():
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    results = {}

    def work(name):
        results[name] = template.render([{"role": "user", "content": name}] * 200)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {name: name * 200 for name in "abcd"}


def test_a_template_can_reject_its_messages():
    with pytest.raises(TemplateError, match="only two roles"):
        render("{{ raise_exception('only two roles') }}")


def test_extensions_of_transformers_are_supported():
    assert render("{{ {'a': '<é>'} | tojson }}") == '{"a": "<é>"}'
    assert render("{{ strftime_now('%Y') | int > 2000 }}") == "True"
    assert render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"
    assert render("a{% generation %}b{% endgeneration %}c") == "abc"
    assert render("{% if true %}\n    x\n{% endif %}\ny") == "    x\ny"
    assert render("{{ bos_token }}{{ eos_token }}{{ enable_thinking }}", enable_thinking=False) == "<B><E>False"


def test_messages_are_plain_data():
    with pytest.raises(TemplateError, match="found a object in the messages"):
        render("{{ messages }}", [{"role": "user", "content": object()}])
    nested = []
    nested.append(nested)
    with pytest.raises(TemplateError, match="nested more than"):
        render("{{ messages }}", [{"role": "user", "content": nested}])


def test_a_message_that_is_too_long_is_an_error():
    with pytest.raises(PromptError, match="more than 2,097,152 characters"):
        render("{{ messages }}", [{"role": "user", "content": "a" * 3_000_000}])
