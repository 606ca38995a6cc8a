"""Formats of tool calls: the fixed texts around name and arguments, as in the models' chat templates."""

from __future__ import annotations

import msgspec

__all__ = ["FALLBACK", "FORMATS", "ToolFormat", "format_of"]


class ToolFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The fixed texts of an answer with tool calls; the arguments are a JSON object.

    ``opening (before_name NAME after_name ARGUMENTS after_arguments) between (...) closing``

    Attributes:
        name: in messages and documents.
        marks: texts that a template of this format has.
        excluded: texts that it does not have.
        trigger: where this text appears, calls begin.
        at_start: the trigger counts at the beginning of the answer only.
        between: between two calls; ``None`` where only one is possible.
    """

    name: str
    marks: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    trigger: str
    at_start: bool = False
    opening: str = ""
    before_name: str
    after_name: str
    after_arguments: str
    between: str | None = ""
    closing: str = ""

    def example(self) -> str:
        """A call with placeholders, for the system message."""
        call = f"{self.before_name}NAME{self.after_name}ARGUMENTS{self.after_arguments}"
        return f"{self.opening}{call}{self.closing}"

    @property
    def texts(self) -> str:
        """All fixed texts."""
        return "".join(
            (self.opening, self.before_name, self.after_name, self.after_arguments, self.between or "", self.closing)
        )


_BEGIN, _END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _CALL_END, _SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"

DEEPSEEK_V3 = ToolFormat(
    name="DeepSeek V3 and R1",
    marks=(_BEGIN, "```json"),
    trigger=_BEGIN,
    opening=_BEGIN,
    before_name=f"{_CALL}function{_SEP}",
    after_name="\n```json\n",
    after_arguments=f"\n```{_CALL_END}",
    between="\n",
    closing=_END,
)
DEEPSEEK_V3_1 = ToolFormat(
    name="DeepSeek V3.1",
    marks=(_BEGIN,),
    excluded=("```json",),
    trigger=_BEGIN,
    opening=_BEGIN,
    before_name=_CALL,
    after_name=_SEP,
    after_arguments=_CALL_END,
    closing=_END,
)
HERMES = ToolFormat(
    name="Hermes and Qwen",
    marks=("<tool_call>", '"name"', '"arguments"'),
    excluded=("<function=", "<arg_key>"),  # Qwen3-Coder and GLM write XML
    trigger="<tool_call>",
    before_name='<tool_call>\n{"name": "',
    after_name='", "arguments": ',
    after_arguments="}\n</tool_call>",
    between="\n",
)
LLAMA_3_1 = ToolFormat(
    name="Llama 3.1",
    marks=('{"name": "', '"parameters": ', "ipython"),
    excluded=("<tool_call>",),
    trigger="{",
    at_start=True,
    before_name='{"name": "',
    after_name='", "parameters": ',
    after_arguments="}",
    between=None,
)

FORMATS = (DEEPSEEK_V3, DEEPSEEK_V3_1, HERMES, LLAMA_3_1)
FALLBACK = HERMES  # plain text, in the words that most models have seen


def format_of(source: str) -> ToolFormat | None:
    """The format that a chat template writes; ``None`` for a template without one that is known."""
    for found in FORMATS:
        if all(mark in source for mark in found.marks) and not any(text in source for text in found.excluded):
            return found
    return None
