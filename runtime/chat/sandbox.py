"""A Jinja environment for untrusted templates: only the functions, methods and filters listed here can be called.

Templates come from model files, and Jinja's own sandbox limits neither time nor memory (``'a' * 10**10`` passes). A
child process with resource limits would limit both, but costs a process on every device. Instead, a call that counts
steps is inserted into the body of every loop and macro, and every operation, method and filter that makes a value
checks its size against a :class:`~sprat.runtime.chat.budget.Budget`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.filters
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils
import jinja2.visitor
from jinja2 import nodes

from sprat.errors import TemplateError
from sprat.runtime.chat.budget import MAX_VALUE_SIZE, Budget, too_large

__all__ = ["TemplateEnvironment", "rendering"]

rendering: ContextVar[Budget] = ContextVar("rendering")  # budget of the rendering in this thread

_TEXT_METHODS = (
    "capitalize count endswith find index isalpha isdigit islower isspace isupper join lower lstrip partition "
    "removeprefix removesuffix replace rfind rpartition rsplit rstrip split splitlines startswith strip swapcase title "
    "upper"
)
_LOOP = "changed cycle depth depth0 first index index0 last length nextitem previtem revindex revindex0"
_ATTRIBUTES: dict[type, frozenset[str]] = {
    str: frozenset(_TEXT_METHODS.split()),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    jinja2.runtime.LoopContext: frozenset(_LOOP.split()),
}
_JINJA_FILTERS = (
    "abs capitalize count d default dictsort first float int items last length list lower map max min reject "
    "rejectattr reverse select selectattr sort string title trim unique upper"
)
_FORBIDDEN_STATEMENTS = (nodes.Block, nodes.Extends, nodes.FromImport, nodes.Import, nodes.Include)


class TemplateEnvironment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Configured like the environment of transformers, with the restrictions in the module docstring."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constant expressions are charged to a budget, too
            finalize=_finalize,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        self.globals = {
            "dict": dict,
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "range": jinja2.sandbox.safe_range,
            "strftime_now": _strftime_now,
        }
        self.filters = {name: _metered(function) for name, function in _filters().items()}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Instrument(self).visit(super()._parse(source, name, filename))
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may access the attribute: only those listed for the type."""
        if isinstance(obj, _Namespace):
            return not attr.startswith("_")
        return attr in _ATTRIBUTES.get(type(obj), frozenset())

    def wrap_str_format(self, value: Any) -> None:
        """Return nothing: ``str.format`` is not wrapped but forbidden, like every method that is not listed."""

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method; every call in a template comes here."""
        budget = rendering.get()
        if obj in (self.step, self.checked, self.tilde):
            return obj(*args)
        budget.step()
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str) and name in _BOUNDED_METHODS:
            return budget.checked(_BOUNDED_METHODS[name](owner, *args))
        with budget:
            return budget.checked(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Evaluate a binary operator; an error if the result could be far larger than its operands."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" or (operator == "%" and not numbers):
            raise TemplateError(f"the chat template uses the operator {operator!r}, which the sandbox forbids")
        if operator == "*" and not numbers:
            value, times = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(value, str | list | tuple) and isinstance(times, int) and len(value) * times > MAX_VALUE_SIZE:
                raise too_large()
        return rendering.get().checked(super().call_binop(context, operator, left, right))

    def step(self, text: int) -> bool:
        """Charge one iteration of a loop or call of a macro whose body holds ``text`` literal characters."""
        return rendering.get().step(text)

    def checked(self, value: Any) -> Any:
        """Charge a list, tuple or dict that the template made."""
        return rendering.get().checked(value)

    def tilde(self, *parts: Any) -> str:
        """Evaluate the operator ``~``."""
        return _join("", parts)


class _Instrument(jinja2.visitor.NodeTransformer):
    """Inserts calls of the environment's methods where Jinja has no hook."""

    def __init__(self, environment: TemplateEnvironment) -> None:
        self._environment = environment

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """The node that replaces ``node``; its children are replaced first."""
        if isinstance(node, _FORBIDDEN_STATEMENTS):
            raise TemplateError(
                f"the chat template uses the statement {type(node).__name__.lower()!r}, which the sandbox forbids"
            )
        self.generic_visit(node, *args, **kwargs)
        match node:
            case nodes.For() | nodes.Macro() | nodes.CallBlock():
                self._insert_step(node)
            case nodes.Concat():
                return self._call("tilde", node, *node.nodes)
            case nodes.List() | nodes.Dict() | nodes.Tuple(ctx="load"):
                return self._call("checked", node, node)
        return node

    def _insert_step(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> None:
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

    def parse(self, parser: jinja2.parser.Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(jinja2.utils.Namespace):
    """``namespace()`` whose text does not include its contents."""

    def __repr__(self) -> str:
        return "namespace"


@jinja2.pass_context  # with the context, so that Jinja does not call it while it compiles
def _finalize(_context: Any, value: Any) -> str:
    """The text that ``{{ value }}`` writes."""
    text = str(value)
    rendering.get().charge(len(text))
    return text


def _metered(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def metered(*args: Any, **kwargs: Any) -> Any:
        budget = rendering.get()
        budget.step()
        return budget.checked(function(*args, **kwargs))

    return metered


def _join(separator: str, parts: Iterable[Any]) -> str:
    budget, texts, size = rendering.get(), [], 0
    for part in parts:
        texts.append(str(part))
        size += len(texts[-1]) + len(separator)
        if size > MAX_VALUE_SIZE + len(separator):
            raise too_large()
    budget.charge(size)
    return separator.join(texts)


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    if len(text) + text.count(old) * len(new) > MAX_VALUE_SIZE:
        raise too_large()
    return text.replace(old, new, count)


_BOUNDED_METHODS: dict[str, Callable[..., Any]] = {"join": _join, "replace": _replace}


def _filters() -> dict[str, Callable[..., Any]]:
    replacements = {
        "indent": _indent,
        "join": _join_filter,
        "replace": lambda text, old, new, count=-1: _replace(str(text), str(old), str(new), count),
        "round": lambda value, precision=0: round(value, min(precision, 15)),
        "safe": str,
        "sum": sum,
        "tojson": _tojson,
    }
    return {name: jinja2.filters.FILTERS[name] for name in _JINJA_FILTERS.split()} | replacements


@jinja2.pass_environment
def _join_filter(
    environment: jinja2.Environment, values: Iterable[Any], separator: str = "", attribute: str | None = None
) -> str:
    if attribute is not None:
        values = (environment.getitem(value, attribute) for value in values)
    return _join(str(separator), values)


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = " " * min(width, 64) if isinstance(width, int) else width[:64]
    lines = str(text).split("\n")
    kept = [line if not line and not blank else margin + line for line in lines]
    return "\n".join(kept if first else [lines[0], *kept[1:]])


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Like the filter of transformers: without the HTML escapes of Jinja's own."""
    if (indent or 0) > 16 or any(len(separator) > 16 for separator in separators or ()):
        raise too_large()
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format[:256])


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(str(message))
