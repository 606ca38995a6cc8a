"""Writes docs/api.md from the signatures and docstrings of the public API: ``python docs/make_api.py``.

``python docs/make_api.py --check`` exits with 1 if the file is stale.
"""

from __future__ import annotations

import enum
import functools
import importlib
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sprat

PAGE = Path(__file__).with_name("api.md")

GROUPS = {
    "Load and generate": ("load", "Engine", "Session"),
    "Many at a time": ("AsyncEngine", "AsyncSession", "serve"),
    "Export": ("export", "estimate_export", "quantize"),
    "Inspect, verify, evaluate": ("inspect", "verify", "evaluate"),
    "Plan and measure": ("plan", "bench", "report"),
}
"""Functions and classes, in the order of the page."""

ERRORS = tuple(name for name in sprat.__all__ if name.endswith("Error"))

RECORDS = (
    "sprat.progress:Progress",
    "sprat.runtime.loading.options:LoadOptions",
    "sprat.runtime.generate.sampling:SamplingParams",
    "sprat.runtime.generate.options:StopConditions",
    "sprat.runtime.generate.options:AnswerRules",
    "sprat.runtime.generate.generation:Generation",
    "sprat.runtime.generate.results:Piece",
    "sprat.runtime.generate.results:Summary",
    "sprat.runtime.generate.results:FinishReason",
    "sprat.runtime.generate.results:Usage",
    "sprat.runtime.generate.results:Timings",
    "sprat.runtime.generate.decision:Decision",
    "sprat.runtime.chat.prompt:TemplateOptions",
    "sprat.runtime.chat.prompt:ReplyOptions",
    "sprat.runtime.chat.reply:Message",
    "sprat.runtime.chat.tools.splitter:ToolCall",
    "sprat.runtime.chat.reply:Logprobs",
    "sprat.runtime.chat.reply:TokenLogprob",
    "sprat.runtime.async_engine.stream:AsyncGeneration",
    "sprat.runtime.async_engine.stream:AsyncChatStream",
    "sprat.runtime.chat.completions:ChatCompletion",
    "sprat.runtime.chat.completions:Choice",
    "sprat.runtime.chat.completions:ChatStream",
    "sprat.runtime.chat.completions:ChatChunk",
    "sprat.runtime.chat.reply:Delta",
    "sprat.export.options:ExportOptions",
    "sprat.export.pipeline:ExportResult",
    "sprat.export.estimate:ExportEstimate",
    "sprat.export.gguf.quantize:QuantizeResult",
    "sprat.export.inspection:Inspection",
    "sprat.export.inspection:TensorUse",
    "sprat.export.inspection:Runtime",
    "sprat.export.verify.verify:Verification",
    "sprat.quant.quality:Quality",
    "sprat.app.evaluate:Evaluation",
    "sprat.devices.plan.plan:Plan",
    "sprat.devices.plan.plan:Verdict",
    "sprat.devices.plan.plan:PlanSummary",
    "sprat.devices.plan.plan:Prediction",
    "sprat.devices.plan.gpu:GPUPlan",
    "sprat.devices.plan.placement:PlacedModel",
    "sprat.devices.plan.placement:Placement",
    "sprat.devices.bench.results:Measurement",
    "sprat.devices.bench.results:Label",
    "sprat.app.bench.trace:TraceReport",
    "sprat.devices.report.build:Report",
)
"""Types of arguments and results. Their attributes are public; the modules that define them are not."""

_SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Examples")
_TITLES = {"Args": "Arguments", "Example": "Example", "Examples": "Example", "Yields": "Yields"}
_ITEMS = ("Args", "Attributes", "Raises")
_PROPERTIES = (property, functools.cached_property)
_WIDTH = 120
_ABOUT_RECORDS = (
    "Records that these functions take and return. Do not import them: the modules that define them may move."
)
_INTRODUCTION = """\
# API

The public API is what `sprat.__all__` lists; import it from `sprat` only.
[stability.md](stability.md) states what may change. This page is generated from
signatures and docstrings by `python docs/make_api.py`.

`sprat.__version__` is the installed version.
"""


@dataclass
class Docstring:
    """A docstring in Google style: prose, and sections by title."""

    prose: str
    sections: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, found: object) -> Docstring:
        """Split the docstring of ``found``."""
        parts = re.split(rf"^({'|'.join(_SECTIONS)}):\n", inspect.getdoc(found) or "", flags=re.MULTILINE)
        sections = {title: textwrap.dedent(body).strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}
        return cls(parts[0].strip(), sections)

    def markdown(self) -> Iterator[str]:
        """Paragraphs, then each section as a list or as a block of code."""
        yield _text(self.prose)
        for title, body in self.sections.items():
            heading = f"*{_TITLES.get(title, title)}*"
            if title in _ITEMS:
                yield f"{heading}\n\n" + "\n".join(_items(body))
            elif ">>>" in body:
                yield f"{heading}\n\n```pycon\n{_without_directives(body)}\n```"
            else:
                yield f"{heading}\n\n{_text(body)}"


def render() -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for title, names in GROUPS.items():
        parts.append(f"## {title}")
        for name in names:
            parts += _public(name)
    parts.append("## Errors\n\n" + "\n".join(map(_error, ERRORS)))
    parts.append(f"## Arguments and results\n\n{_ABOUT_RECORDS}")
    for reference in RECORDS:
        module, name = reference.split(":")
        parts += [f"### {name}", *_class(getattr(importlib.import_module(module), name))]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _public(name: str) -> Iterator[str]:
    found = getattr(sprat, name)
    yield f"### sprat.{name}"
    if inspect.isclass(found):
        yield from _class(found)
    else:
        function = found if inspect.isfunction(found) else importlib.import_module(f"sprat.app.{name}").export
        yield from _function(function, f"sprat.{name}")


def _error(name: str) -> str:
    found = getattr(sprat, name)
    parents = ", ".join(f"`{parent.__name__}`" for parent in found.__bases__)
    return f"- `sprat.{name}` ({parents}): {_text(inspect.getdoc(found) or '')}"


def _class(found: type) -> Iterator[str]:
    docstring = Docstring.of(found)
    is_record = _is_record(found)
    if not is_record:
        docstring.sections.pop("Args", None)  # of its constructor, which is not public
    prose, *sections = docstring.markdown()
    yield prose
    if is_record and not {"Args", "Attributes"} & docstring.sections.keys():
        yield f"```python\n{_field_lines(found)}\n```"
    yield from sections
    members = {name: member for name, member in vars(found).items() if not name.startswith("_")}
    if properties := [_property(name, member) for name, member in members.items() if isinstance(member, _PROPERTIES)]:
        yield "*Properties*\n\n" + "\n".join(properties)
    for name, member in members.items():
        if isinstance(member, (types.FunctionType, classmethod)):
            function = member.__func__ if isinstance(member, classmethod) else member
            yield f"#### {found.__name__}.{name}"
            shown = f"{found.__name__}.{name}" if isinstance(member, classmethod) else name
            yield from _function(function, shown, method=True)


def _property(name: str, member: property | functools.cached_property[Any]) -> str:
    function: Any = member.fget if isinstance(member, property) else member.func
    docstring = Docstring.of(member)
    raises = [f"Raises {item[2:]}" for item in _items(docstring.sections.get("Raises", ""))]
    text = " ".join([_text(docstring.prose), *raises])
    return f"- `{name}: {inspect.signature(function).return_annotation}`: {' '.join(text.split())}"


def _function(function: Any, name: str, *, method: bool = False) -> Iterator[str]:
    yield f"```python\n{_signature(function, name, method=method)}\n```"
    yield from Docstring.of(function).markdown()


def _signature(function: Any, name: str, *, method: bool) -> str:
    """``name(...) -> result`` on one line, or one line per parameter if that is too long."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1 if method else 0 :]
    texts, star = [], False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            texts.append("*")
        star = star or parameter.kind in {parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL}
        texts.append(_parameter(parameter))
    line = f"{name}({', '.join(texts)}) -> {signature.return_annotation}"
    if len(line) <= _WIDTH:
        return line
    return f"{name}(\n" + "".join(f"    {text},\n" for text in texts) + f") -> {signature.return_annotation}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
    text = f"{stars}{parameter.name}: {parameter.annotation}"
    if parameter.default is parameter.empty:
        return text
    default = parameter.default
    return f"{text} = {default.__name__ if inspect.isfunction(default) else _literal(default)}"


def _literal(value: object) -> str:
    return repr(value).replace("'", '"')


def _field_lines(found: type) -> str:
    """The fields of a record, or the members of an enum, as the source states them, comments included."""
    lines = inspect.getsource(found).splitlines()
    return "\n".join(line.strip() for line in lines if re.match(r"^ {4}([a-z]\w*: |[A-Z_]+ = )", line))


def _is_record(found: type) -> bool:
    """Whether it is a dataclass, a msgspec struct, a TypedDict or an enum."""
    return issubclass(found, enum.Enum) or any(
        hasattr(found, name) for name in ("__dataclass_fields__", "__struct_fields__", "__total__")
    )


def _items(body: str) -> Iterator[str]:
    """``name: text`` items, whose continuation lines are indented, as a list."""
    for item in re.split(r"\n(?=\S)", body) if body else ():
        name, text = item.split(":", maxsplit=1)
        yield f"- `{name}`: {_text(' '.join(text.split()))}"


def _text(text: str) -> str:
    """ReStructuredText as markdown: roles and literals as code, literal blocks as fences."""
    text = re.sub(r":\w+:`~?(?:[a-z_]\w*\.)*([\w.]+)`", r"`\1`", text)
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    return re.sub(r"::\n\n((?: {4}.*\n?|\n)+)", lambda block: _fence(block[1]), text)


def _fence(block: str) -> str:
    return f"\n\n```python\n{textwrap.dedent(block).strip()}\n```\n"


def _without_directives(body: str) -> str:
    return re.sub(r" +# doctest:.*", "", body)


def main() -> None:
    """Write the page, or check it."""
    page = render()
    if "--check" not in sys.argv:
        PAGE.write_text(page, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page:
        sys.exit("docs/api.md is stale: python docs/make_api.py")


if __name__ == "__main__":
    main()
