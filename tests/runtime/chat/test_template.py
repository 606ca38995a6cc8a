import json
import threading
from pathlib import Path

import pytest

from sprat.errors import TemplateError
from sprat.runtime.chat import budget as template_budget
from sprat.runtime.chat.template import ChatTemplate

DATA = Path(__file__).parents[2] / "data" / "chat"
GOLDEN = json.loads((DATA / "golden.json").read_text(encoding="utf-8"))
HI = [{"role": "user", "content": "hi"}]


def render(source, messages=HI, **variables):
    return ChatTemplate(source, bos="<B>", eos="<E>").render(messages, **variables)


@pytest.mark.parametrize(
    "case",
    GOLDEN,
    ids=[f"{c['template']}, {c['conversation']}{', asked' if c['add_generation_prompt'] else ''}" for c in GOLDEN],
)
def test_a_published_template_renders_as_transformers_renders_it(case):
    source = (DATA / f"{case['template']}.jinja").read_text(encoding="utf-8")
    assert render(source, case["messages"], add_generation_prompt=case["add_generation_prompt"]) == case["rendered"]


def test_the_golden_file_covers_every_template():
    assert {case["template"] for case in GOLDEN} == {path.stem for path in DATA.glob("*.jinja")}


WITHOUT_END = {
    "nested loops": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "a loop that skips each round": "{% for i in range(9999) %}{% for j in range(9999) if 0 %}{% endfor %}{% endfor %}",
    "a macro that calls itself twice": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "a loop that enters itself": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "a long range": "{% for i in range(1000000000) %}{% endfor %}",
    "text in a loop": "{% for i in range(100000) %}" + "x" * 50_000 + "{% endfor %}",
    "text kept in a variable": "{% set s %}{% for i in range(100000) %}" + "x" * 50_000 + "{% endfor %}{% endset %}",
    "a value written again and again": "{% set s = 'a' * 2000000 %}{% for i in range(100000) %}{{ s }}{% endfor %}",
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
    "replacing each letter": "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
    "replacing each letter in a method": "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}",
    "a deep margin": "{{ [1] | tojson(indent=1000000000) }}",
    "a wide separator": "{{ [1, 2] | tojson(separators=('a' * 1000, ':')) }}",
    "a growing number": "{% set n = namespace(x=10) %}{% for i in range(40) %}{% set n.x = n.x * n.x %}{% endfor %}",
}
REACHING = {
    "the class of a string": "{{ ''.__class__.__mro__ }}",
    "a class by index": "{{ ''['__class__'].__mro__ }}",
    "the globals of a function": "{{ raise_exception.__globals__.x }}",
    "Jinja's lipsum": "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "Jinja's cycler": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "itself": "{{ self.__init__.__globals__ }}",
    "the filter attr": "{{ '' | attr('__class__') }}",
    "str.format": "{{ '{0.__class__}'.format(1) }}",
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
MISTAKEN = {
    "bad syntax": "{% if %}",
    "a block without end": "{% for x in messages %}",
    "parentheses without end": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "loops in loops in loops": "{% for a in [1] %}" * 3000,
    "a name that is not there": "{{ nothing.at.all }}",
    "a key that is not there": "{{ messages[0]['content'] + messages[0]['name'] }}",
    "division by zero": "{{ 1 / 0 }}",
    "a call of a number": "{{ 1() }}",
    "a filter on the wrong thing": "{{ 1 | dictsort }}",
    "far too long a source": "x" * 300_000,
}


@pytest.mark.parametrize("source", WITHOUT_END.values(), ids=WITHOUT_END)
def test_a_template_without_end_is_stopped(source):
    with pytest.raises(TemplateError, match=r"stopped|Range too big"):
        render(source)


@pytest.mark.parametrize("source", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_value_larger_than_any_prompt_is_not_made(source):
    with pytest.raises(TemplateError, match="more than 2097152 characters"):
        render(source)


@pytest.mark.parametrize("source", REACHING.values(), ids=REACHING)
def test_a_template_reaches_nothing_but_what_is_listed(source):
    with pytest.raises(TemplateError):
        render(source)


@pytest.mark.parametrize("source", MISTAKEN.values(), ids=MISTAKEN)
def test_a_mistake_is_one_error_that_says_so(source):
    with pytest.raises(TemplateError, match=r"^The chat template .+\.$"):
        render(source)


def test_the_clock_stops_what_the_budget_allows(monkeypatch):
    monkeypatch.setattr(template_budget, "_UNITS", 1 << 60)
    monkeypatch.setattr(template_budget, "_SECONDS", 0.05)
    with pytest.raises(TemplateError, match="stopped"):
        render(WITHOUT_END["nested loops"])


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


def test_a_template_may_refuse_its_messages():
    with pytest.raises(TemplateError, match="only two roles"):
        render("{{ raise_exception('only two roles') }}")


def test_what_transformers_offers_is_there():
    assert render("{{ {'a': '<é>'} | tojson }}") == '{"a": "<é>"}'
    assert render("{{ strftime_now('%Y') | int > 2000 }}") == "True"
    assert render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"
    assert render("a{% generation %}b{% endgeneration %}c") == "abc"
    assert render("{% if true %}\n    x\n{% endif %}\ny") == "    x\ny"
    assert render("{{ bos_token }}{{ eos_token }}{{ enable_thinking }}", enable_thinking=False) == "<B><E>False"


def test_messages_are_data_and_nothing_else():
    with pytest.raises(TemplateError, match="cannot take a object"):
        render("{{ messages }}", [{"role": "user", "content": object()}])
    nested = []
    nested.append(nested)
    with pytest.raises(TemplateError, match="nests more than"):
        render("{{ messages }}", [{"role": "user", "content": nested}])


def test_a_message_longer_than_any_context_is_refused():
    with pytest.raises(TemplateError, match="more than 2097152 characters"):
        render("{{ messages }}", [{"role": "user", "content": "a" * 3_000_000}])
