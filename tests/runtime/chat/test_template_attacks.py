"""Templates that try to take time, memory or addresses; each ends soon, with text or a TemplateError.

The limit on CPU time, here a quarter of a second, is looked at between operations: each has to be short by itself.
"""

import contextlib
import resource
import time

import pytest

from sprat.errors import TemplateError
from sprat.runtime.chat import budget as template_budget
from sprat.runtime.chat.template import ChatTemplate

ONE_OPERATION = {
    "round to a huge negative precision": "{{ 1|round(-1000000000) }}",
    "round to a huge precision": "{{ 1.5|round(1000000000) }}",
    "round up to a huge precision": "{{ 1|round(1000000000,'ceil') }}",
    "rfind": "{{ ('a'*2000000).rfind('ab' ~ 'a'*1000000) }}",
    "rindex": "{{ ('a'*2000000).rindex('ab' ~ 'a'*1000000) }}",
    "rsplit": "{{ ('a'*2000000).rsplit('ab' ~ 'a'*1000000)|length }}",
    "rpartition": "{{ ('a'*2000000).rpartition('ab' ~ 'a'*1000000)|length }}",
    "find": "{{ ('a'*2000000).find('a'*1000000 ~ 'b') }}",
    "find2": "{{ ('a'*2000000).find('a'*1000 ~ 'b' ~ 'a'*1000) }}",
    "count": "{{ ('ab'*1000000).count('ba'*250000~'c') }}",
    "in": "{{ ('a'*1000000 ~ 'b' ~ 'a'*1000) in ('a'*2000000) }}",
    "strip": "{{ ('b'*1000000).strip('a'*1000000 ~ 'b') }}",
    "trim": "{{ ('b'*1000000)|trim('a'*1000000 ~ 'b') }}",
    "sum": "{{ ([['a']]*62000)|sum(start=[]) }}",
    "percent width": "{{ '%1000000000d' % 1 }}",
    "percent precision": "{{ '%.1000000000f' % 1 }}",
    "format width": "{{ '{:1000000000}'.format(1) }}",
    "format nested": "{{ '{:{}}'.format(1, 1000000000) }}",
    "format prec": "{{ '{:.{}f}'.format(1.5, 100000000) }}",
    "format rep": "{{ ('{0}'*100000).format('a'*1000000) }}",
    "percent rep": "{{ ('%(a)s'*100000) % {'a': 'a'*1000000} }}",
    "center": "{{ 'a'.center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "zfill": "{{ 'a'.zfill(1000000000) }}",
    "filter center": "{{ 'a'|center(1000000000) }}",
    "expandtabs": "{{ ('\t'*1000).expandtabs(1000000000) }}",
    "pow": "{{ 9 ** 999999999 }}",
    "pow tower": "{{ 2**8000 ** 2 }}",
    "pow mul": "{% set n=namespace(x=2**8000) %}{% for i in range(100) %}{% set n.x=n.x*n.x %}{% endfor %}",
    "batch": "{{ [1]|batch(1000000000, 'x')|list }}",
    "slice": "{{ [1]|slice(1000000000)|list }}",
    "compare doubled": "{% set n=namespace(a=[1],b=[1]) %}{% for i in range(50) %}"
    "{% set n.a=[n.a,n.a] %}{% set n.b=[n.b,n.b] %}{% endfor %}{{ n.a == n.b }}",
    "ns doubled": "{% set n=namespace(a=[1]) %}{% for i in range(50) %}"
    "{% set m=namespace(x=n.a,y=n.a) %}{% set n.a=m %}{% endfor %}{{ n.a }}",
    "pprint": "{{ ([['a','b']]*60000)|pprint }}",
    "striptags": "{{ ('<!---->'*200000)|striptags }}",
    "urlize": "{{ ('http://a.b '*100000)|urlize }}",
    "urlize2": "{{ ('('*60000)|urlize|length }}",
    "urlize3": "{{ ('a@'*30000)|urlize|length }}",
    "wordwrap": "{{ ('a '*30000)|wordwrap(1)|length }}",
    "title": "{{ ('a-'*1000000)|title }}",
    "wordcount": "{{ ('a '*32000)|wordcount }}",
    "xmlattr": "{{ {'a':'<'*60000}|xmlattr|length }}",
    "tojson indent": "{{ [1]*100000|tojson(indent=64) }}",
    "tojson nest": "{% set n=namespace(a=[]) %}{% for i in range(900) %}{% set n.a=[n.a] %}"
    "{% endfor %}{{ n.a|tojson(indent=64) }}",
    "escape": "{{ ('<'*2000000)|e }}",
    "replace all": "{{ ('a'*2000000)|replace('a','b')|length }}",
    "splitlines": "{{ ('\n'*2000000).splitlines()|length }}",
    "split": "{{ ('a '*1000000).split()|length }}",
    "split u": "{{ ('a\u2003'*1000000).split()|length }}",
    "int": "{{ ('9'*2000000)|int }}",
    "int16": "{{ ('f'*2000000)|int(0,16) }}",
    "float": "{{ ('9'*2000000)|float }}",
    "translate": "{{ ('a'*1000000).translate({97:'b'*1000}) }}",
    "groupby": "{{ ([{'a':1}]*100000)|groupby('a')|length }}",
    "map": "{{ range(100000)|map('string')|list|length }}",
    "selectattr": "{{ ([{'a':1}]*60000)|selectattr('a')|list|length }}",
    "self rec": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "join": "{{ range(100000)|join('a'*1000000) }}",
    "min": "{{ ('ab'*1000000)|min }}",
    "strftime": "{{ strftime_now('%1000000000d') }}",
    "macro recursion": "{% macro f(n) %}{{ f(n~n) }}{% endmacro %}{{ f('a') }}",
    "joiner": "{% set j=joiner('a'*1000000) %}{% for i in range(1000) %}{{ j() }}{% endfor %}",
    "cycler": "{% set c=cycler('a'*1000000) %}{% for i in range(1000) %}{{ c.next() }}{% endfor %}",
    "wordwrap with a long separator": "{{ ('a' * 64000)|wordwrap(1, true, 'z' * 60000)|length }}",
    "urlize with a long attribute": "{{ ('http://a.b ' * 5000)|urlize(rel='x' * 60000)|length }}",
    "truncate with a long end": "{{ ('a ' * 30000)|truncate(100, end='x' * 60000)|length }}",
    "placeholder paragraphs": "{{ lipsum(1000000) }}",
    "placeholder words": "{{ lipsum(1, false, 20, 1000000000) }}",
    "a long table": "{{ 'abc'.translate(''.maketrans('a' * 2000000, 'b' * 2000000)) }}",
    "a wide indent": "{{ ('\n' * 60000)|indent(2000000, true, true)|length }}",
    "a wide indent of text": "{{ ('\n' * 60000)|indent('z' * 60000, true, true)|length }}",
    "a long format of time": "{{ strftime_now('%99999d' * 40) }}",
    "sorting long keys": "{{ ([{'a': 'x' * 2000000}] * 100000)|sort(attribute='a')|length }}",
    "mapping long text": "{{ (['x' * 2000000] * 60000)|map('upper')|list|length }}",
    "unions of lists": "{% set b = [1] * 130000 %}{{ (b + b)|length }}",
    "bytes": "{{ (1).to_bytes(1000000000) }}",
}
COLLIDING = f"range(0, {100_000 * (2**61 - 1)}, {2**61 - 1})"  # integers with the same hash
LINES = "".join(f"{{% set {name} = ('ababababab,' * 60000).split(',') %}}" for name in "ab")
MANY_OPERATIONS = {
    "slices of a string": "{% set b = 'a' * 2000000 %}" + "".join(f"{{% set x{i} = b[1:] %}}" for i in range(1200)),
    "slices of a list": "{% set b = [1] * 100000 %}" + "".join(f"{{% set x{i} = b[1:] %}}" for i in range(1200)),
    "searches": "{% for i in range(100000) %}{{ ('a' * 29000).find('a' * 99 ~ 'b') }}{% endfor %}",
    "comparisons": "{% set a = 'a' * 2000000 %}{% for i in range(100000) %}{{ a == 'a' * 1999999 ~ 'a' }}{% endfor %}",
    "comparisons without a loop": LINES + "{% if a == b %}{% endif %}" * 3000,
    "tests": LINES + "{% if a is eq b %}{% endif %}" * 3000,
    "membership": LINES + "{% if 'x' in a %}{% endif %}" * 3000,
    "membership in a range": "{% if 1.5 in range(99999) %}{% endif %}" * 3000,
    "keys that are long tuples": "{% set a = (1,) * 100000 %}" + "{{ {}[a] }}" * 3000,
    "searches in a long text": "{% set a = 'a' * 2000000 %}" + "{% if 'b' in a %}{% endif %}" * 3000,
    "titles": "{% for i in range(100000) %}{{ ('ab ' * 100000).title() | length }}{% endfor %}",
    "keys whose hashes collide": f"{{{{ dict({COLLIDING} | batch(2)) | length }}}}",
    "items whose hashes collide": f"{{{{ {COLLIDING} | unique | list | length }}}}",
    "fromkeys": f"{{{{ dict.fromkeys({COLLIDING}) | length }}}}",
}
SOURCES = {
    "many expressions": "{{ a }}" * 30000,
    "many loops": "{% for a in [] %}{% endfor %}" * 8000,
    "opened tags": "{%" * 100000,
    "opened parentheses": "{{ " + "(" * 100000,
    "a long number": "{{ " + "9" * 100000 + " }}",
    "a long condition": "{% if " + " or ".join(["0"] * 20000) + " %}{% endif %}",
    "a number that no float holds": "{{ 1e" + "9" * 250_000 + " }}",
    "many choices": "{% if 0 %}" + "{% elif 0 %}" * 5000 + "{% endif %}",
    "nested lists": "{{ " + "[" * 500 + "]" * 500 + " }}",
}
INPUTS = {
    "stripping": "{{ messages[1].content.strip(messages[0].content) }}",
    "replacing": "{{ messages[0].content | replace('a', 'b') | length }}",
    "a list of characters": "{{ messages[0].content | list | length }}",
    "sorted characters": "{{ messages[0].content | sort | length }}",
    "a loop over characters": "{% for c in messages[0].content %}{% endfor %}",
    "splitting": "{{ messages[0].content.split('a') | length }}",
}
LONG = [
    {"role": "user", "content": "a" * 900_000},
    {"role": "user", "content": "".join(chr(0x100 + index) for index in range(50_000)) * 10},
]
ADDRESSES = [
    "{{ 'a'.find }}",
    "{{ ['a'.find] }}",
    "{{ {'a': 'a'.find} }}",
    "{{ messages|map('upper') }}",
    "{{ raise_exception }}",
    "{{ cycler('a') }}",
    "{{ dict }}",
    "{{ 'a' ~ 'a'.find }}",
    "{{ '%s' % 'a'.find }}",
    "{{ '{}'.format('a'.find) }}",
    "{{ '%r' % ['a'.find] }}",
    "{{ 'a'.find|string }}",
    "{{ ['a'.find]|join }}",
    "{{ ['a'.find]|pprint }}",
    "{{ raise_exception('a'.find) }}",
    "{{ raise_exception(['a'.find]) }}",
    "{{ 'a'.find|e }}",
    "{{ 'a'.find|urlencode }}",
    "{{ self }}",
    "{{ namespace(a='a'.find) }}",
    "{{ 'a'.find|replace('a','b') }}",
    "{{ 'a'.find|truncate }}",
    "{{ 'a'.find|title }}",
    "{{ {'a':'a'.find}.items() }}",
    "{{ 'a'.find|upper }}",
    "{{ 'a'.find|indent }}",
    "{{ 'a'.find|tojson }}",
    "{{ 'a'.find|wordwrap }}",
    "{{ 'a'.find|trim }}",
    "{% set x %}{{ 'a'.find }}{% endset %}{{ x }}",
    "{{ ('a'.find).x.y }}",
    "{{ ('a'.find)() }}",
    "{{ raise_exception('\x1b[2J\x07') }}",
    "{{ {'a':'a'.find}|xmlattr }}",
    "{{ 'a'.find|center(90) }}",
    "{{ 'a'.find|wordcount }}",
    "{% for x in ['a'.find] %}{{ loop.cycle(x) }}{% endfor %}",
    "{{ 'a'.find|striptags }}",
    "{{ 1 + 'a'.find }}",
    "{{ 'a'.find[0] }}",
    "{{ [1]['a'.find] }}",
    "{{ {}['a'.find].x }}",
    "{{ {'a':'a'.find}|dictsort }}",
    "{{ dict.fromkeys }}",
    "{% macro f() %}{% endmacro %}{{ f }}",
    "{% macro f() %}{{ caller }}{% endmacro %}{% call f() %}{% endcall %}",
    "{{ [{'a':'a'.find}]|groupby('a') }}",
    "{{ {'a'.find: 1} }}",
    "{{ 'a'|int(default='a'.find) }}",
]


@pytest.fixture(autouse=True)
def short_limit(monkeypatch):
    monkeypatch.setattr(template_budget, "_SECONDS", 0.25)


LIMIT_S = 30  # six times the sandbox's own limit; without limits these sources take minutes or for ever


def seconds(source, messages=LONG[:0]):
    """CPU time of one rendering, with or without an error."""
    started = time.thread_time()
    with contextlib.suppress(TemplateError):
        ChatTemplate(source).render(messages or [{"role": "user", "content": "hi"}])
    return time.thread_time() - started


@pytest.mark.parametrize("source", ONE_OPERATION.values(), ids=ONE_OPERATION)
def test_one_operation_is_short_and_small(source):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert seconds(source) < LIMIT_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # KiB


@pytest.mark.parametrize("source", MANY_OPERATIONS.values(), ids=MANY_OPERATIONS)
def test_many_operations_are_stopped(source):
    started = time.thread_time()
    with pytest.raises(TemplateError, match=r"stopped|more than 16384 statements"):
        ChatTemplate(source).render([{"role": "user", "content": "hi"}])
    assert time.thread_time() - started < LIMIT_S


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_source_that_is_slow_to_compile_is_refused(source):
    assert seconds(source) < LIMIT_S


@pytest.mark.parametrize("source", INPUTS.values(), ids=INPUTS)
def test_long_messages_are_no_way_around_the_limits(source):
    assert seconds(source, LONG) < LIMIT_S


@pytest.mark.parametrize("source", ADDRESSES)
def test_no_address_gets_into_a_prompt_or_a_message(source):
    try:
        text = ChatTemplate(source).render([{"role": "user", "content": "hi"}])
    except TemplateError as error:
        text = str(error)
    assert "0x" not in text.replace("0x…", "")


def test_a_message_of_a_template_has_no_escape_sequences():
    with pytest.raises(TemplateError) as caught:
        ChatTemplate("{{ raise_exception('a\\x1b[2J\\x07b') }}").render([{"role": "user", "content": "hi"}])
    assert str(caught.value) == r"the chat template failed: a\x1b[2J\x07b"
