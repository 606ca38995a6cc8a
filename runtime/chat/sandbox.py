"""A Jinja environment for untrusted templates: only the functions, methods and filters listed here can be called.

Templates come from model files, and Jinja's own sandbox limits neither time nor memory (``'a' * 10**10`` passes). A
child process with resource limits would limit both, but costs a process on every device. Instead, every operation,
method and filter that makes a value is charged to a :class:`~sprat.runtime.chat.budget.Budget` before it runs, and a
call that counts steps is inserted into the body of every loop and macro.

It renders what transformers renders, except: statements that load other templates, of which there are none;
``autoescape``, whose generated code loses track of the input; and ``str.encode``, since bytes cannot be tracked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils
import jinja2.visitor
from jinja2 import nodes
from markupsafe import Markup

from sprat.errors import TemplateError
from sprat.runtime.chat.budget import MAX_ENTRIES, rendering, too_large
from sprat.runtime.chat.filters import escape, filters, tests
from sprat.runtime.chat.text_format import format_braces, format_percent, text_of
from sprat.runtime.chat.text_methods import TEXT_METHODS, join, maketrans, repeat
from sprat.runtime.chat.tracked_text import TrackedStr, concat, mask_of, tracked, unmarked

__all__ = ["TemplateEnvironment"]

_LOOP = "changed cycle depth depth0 first index index0 last length nextitem previtem revindex revindex0"
_MACRO = "arguments caller catch_kwargs catch_varargs name"
_TEXT = frozenset({*TEXT_METHODS, "format", "format_map", "maketrans"})
_ATTRIBUTES: dict[type, frozenset[str]] = {
    str: _TEXT,
    Markup: _TEXT,
    dict: frozenset({"copy", "get", "items", "keys", "values"}),
    list: frozenset({"copy", "count", "index"}),
    tuple: frozenset({"count", "index"}),
    range: frozenset({"count", "index", "start", "step", "stop"}),
    int: frozenset({"bit_length", "conjugate", "denominator", "imag", "is_integer", "numerator", "real"}),
    float: frozenset({"conjugate", "hex", "imag", "is_integer", "real"}),
    jinja2.runtime.LoopContext: frozenset(_LOOP.split()),
    jinja2.runtime.Macro: frozenset(_MACRO.split()),
    jinja2.utils.Cycler: frozenset({"current", "items", "next", "pos", "reset"}),
    jinja2.utils.Joiner: frozenset({"sep", "used"}),
}
_FORBIDDEN_STATEMENTS = (
    nodes.EvalContextModifier,
    nodes.Extends,
    nodes.FromImport,
    nodes.Import,
    nodes.Include,
)
_MAX_TIME_FORMAT = 256  # characters; each may make some more
_LIPSUM_WORD = 16  # characters that a word of placeholder text has at most, with its space
_MAX_NODES = 1 << 14  # of the syntax tree; published templates have one per 10 characters, up to about 2,000
_JINJA_KEYWORDS = frozenset({"_block_vars", "_loop_vars"})  # which Jinja passes with every call in a loop or block


class TemplateEnvironment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Configured like the environment of transformers, with the restrictions in the module docstring."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    concat = staticmethod(concat)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constant expressions are charged to a budget, too
            finalize=_finalize,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        self.globals = {
            "cycler": jinja2.utils.Cycler,
            "dict": _Dict(),
            "joiner": jinja2.utils.Joiner,
            "lipsum": _lipsum,
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "range": jinja2.sandbox.safe_range,
            "strftime_now": _strftime_now,
        }
        self.filters = filters()
        self.tests.update(tests())
        self._own = {"step", "checked", "tilde", "part", "operand", "infinity"}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Instrument(self).visit(super()._parse(source, name, filename))
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may access the attribute: only those listed for the type."""
        if isinstance(obj, _Namespace):
            return not attr.startswith("_")
        if isinstance(obj, _Dict):
            return attr == "fromkeys"
        if isinstance(obj, tuple):  # groupby returns named tuples
            return attr in getattr(type(obj), "_fields", ()) or attr in _ATTRIBUTES[tuple]
        return attr in _ATTRIBUTES.get(str if isinstance(obj, TrackedStr) else type(obj), frozenset())

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Evaluate ``obj[argument]``; a tuple as key is hashed."""
        if isinstance(argument, tuple):
            rendering.get().read(argument)
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> None:
        """Return nothing: :meth:`call` formats."""

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method; every call in a template comes here."""
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if owner is self and name in self._own:
            return obj(*args)
        budget = rendering.get()
        if isinstance(owner, str):
            budget.step(len(owner) + sum(len(value) for value in args if isinstance(value, str)))
            given = {key: value for key, value in kwargs.items() if key not in _JINJA_KEYWORDS}
            return budget.checked(self._call_method(unmarked(owner), name, args, given))
        budget.step()
        if obj == str.maketrans:
            return budget.checked(maketrans(*args))
        with budget:
            return budget.checked(super().call(context, obj, *args, **kwargs))

    def _call_method(self, text: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "format":
            return format_braces(self, text, args, kwargs)
        if name == "format_map":
            return format_braces(self, text, (), *args)
        return TEXT_METHODS[name](text, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Evaluate a binary operator; an error if the result could be far larger than its operands."""
        budget = rendering.get()
        if isinstance(left, str) and operator == "%":
            return budget.checked(format_percent(text_of(left), right))
        if isinstance(left, str) and isinstance(right, str) and operator == "+":
            return budget.checked(_add(left, right))
        both_lists = isinstance(left, list | tuple) and isinstance(right, list | tuple)
        if operator == "+" and both_lists and len(left) + len(right) > MAX_ENTRIES:  # charged when it is made
            raise too_large()
        if operator == "*":
            value, times = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(value, str) and isinstance(times, int):
                return repeat(text_of(value), times)
            if isinstance(value, list | tuple) and isinstance(times, int):
                budget.entries(len(value) * times)
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            budget.reserve_bits(left.bit_length() * right)
        return budget.checked(super().call_binop(context, operator, left, right))

    def step(self, text: int) -> bool:
        """Charge one iteration of a loop or call of a macro whose body holds ``text`` literal characters."""
        return rendering.get().step(text)

    def checked(self, value: Any) -> Any:
        """Charge a list, tuple or dict that the template made."""
        return rendering.get().checked(value)

    def operand(self, value: Any) -> Any:
        """Charge an operand of a comparison."""
        return rendering.get().read(value)

    def infinity(self) -> float:
        """A number of the template that is larger than a float holds."""
        return math.inf

    def tilde(self, *parts: Any) -> str:
        """Evaluate the operator ``~``."""
        text = join("", map(text_of, parts))
        rendering.get().charge(len(text))
        return text

    def part(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """Evaluate ``value[start:stop:step]``."""
        bounds = slice(start, stop, step)
        if isinstance(value, str | list | tuple):
            n_kept = len(range(*bounds.indices(len(value))))
            rendering.get().reserve(n_kept) if isinstance(value, str) else rendering.get().entries(n_kept)
        return rendering.get().checked(value[bounds])


class _Instrument(jinja2.visitor.NodeTransformer):
    """Inserts calls of the environment's methods where Jinja has no hook."""

    def __init__(self, environment: TemplateEnvironment) -> None:
        self._environment = environment
        self._n_nodes = 0

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """The node that replaces ``node``; its children are replaced first."""
        if isinstance(node, _FORBIDDEN_STATEMENTS):
            raise TemplateError(
                f"the chat template uses the statement {type(node).__name__.lower()!r}, which the sandbox forbids"
            )
        self._n_nodes += 1
        if self._n_nodes > _MAX_NODES:  # Jinja and Python take a fifth of a millisecond to compile one
            raise TemplateError(f"the chat template has more than {_MAX_NODES} statements and expressions")
        self.generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock | nodes.Block):
            self._insert_step(node)
        if isinstance(node, nodes.Compare):
            self._charge_operands(node)
        return self._charged(node)

    def _charged(self, node: nodes.Node) -> nodes.Node:
        """The call that makes the value of ``node``, where Jinja's own code would make it for nothing."""
        match node:
            case nodes.Concat():
                return self._call("tilde", node, *node.nodes)
            case nodes.Const(value=float() as value) if math.isinf(value):  # Jinja would write it as a name: inf
                return self._call("infinity", node)
            case nodes.List() | nodes.Dict() | nodes.Tuple(ctx="load"):
                return self._call("checked", node, node)
            case nodes.Getitem(arg=nodes.Slice() as bounds):
                parts = (bound or nodes.Const(None) for bound in (bounds.start, bounds.stop, bounds.step))
                return self._call("part", node, node.node, *parts)
        return node

    def _charge_operands(self, node: nodes.Compare) -> None:
        sides: list[nodes.Compare | nodes.Operand] = [node, *node.ops]
        for side in sides:
            if not isinstance(side.expr, nodes.Const):
                side.expr = self._call("operand", node, side.expr)

    def _insert_step(self, node: nodes.For | nodes.Macro | nodes.CallBlock | nodes.Block) -> None:
        n_literal = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        step = self._call("step", node, nodes.Const(n_literal))
        node.body.insert(0, nodes.ExprStmt(step, lineno=node.lineno))
        if isinstance(node, nodes.For) and node.test is not None:  # the filter of a loop may skip every iteration
            node.test = nodes.And(self._call("step", node, nodes.Const(0)), node.test, lineno=node.lineno)

    def _call(self, method: str, at: nodes.Node, *arguments: nodes.Node) -> nodes.Call:
        call = nodes.Call(nodes.EnvironmentAttribute(method), list(arguments), [], None, None)
        call.set_lineno(at.lineno).set_environment(self._environment)
        return call


class _Generation(jinja2.ext.Extension):
    """``{% generation %}`` marks the assistant's text for training; a prompt needs only its contents."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: jinja2.parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)  # as in transformers, variables that it sets end with it


class _Namespace(jinja2.utils.Namespace):
    """``namespace()``, like that of transformers."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot store {name!r}: its name begins with an underscore")


class _Dict:
    """``dict()`` and ``dict.fromkeys()``, one entry at a time: keys whose hashes collide take quadratic time."""

    def __call__(self, values: Any = (), /, **kwargs: Any) -> dict[Any, Any]:
        return self._made(values.items() if isinstance(values, dict) else values) | kwargs

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        """A dict that holds ``value`` for every key."""
        return self._made((key, value) for key in keys)

    def _made(self, pairs: Iterable[Any]) -> dict[Any, Any]:
        made = {}
        for key, value in pairs:
            rendering.get().entries()
            made[key] = value
        return made


def _add(left: str, right: str) -> str:
    """``left + right``; text that is marked as HTML escapes the other."""
    if hasattr(left, "__html__") or hasattr(right, "__html__"):
        both = escape(left), escape(right)
        return tracked("".join(both), b"".join(map(mask_of, both)), markup=True)
    return concat((left, right))


@jinja2.pass_context  # with the context, so that Jinja does not call it while it compiles
def _finalize(_context: Any, value: Any) -> str:
    """The text that ``{{ value }}`` writes."""
    text = text_of(value)
    rendering.get().charge(len(text))
    return text


def _strftime_now(format: str) -> str:
    if len(format) > _MAX_TIME_FORMAT:
        raise TemplateError(f"the chat template formats the time with {len(format)} characters, expected at most 256")
    return datetime.now().strftime(format)


def _lipsum(n: int = 5, html: bool = True, min: int = 20, max: int = 100) -> str:
    rendering.get().reserve(n * max * _LIPSUM_WORD)
    return jinja2.utils.generate_lorem_ipsum(n, html, min, max)


def _raise_exception(message: Any) -> None:
    raise jinja2.TemplateError(text_of(message))
