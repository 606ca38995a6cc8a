"""A conversation to token ids: special tokens of the template become tokens, those in messages stay plain text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, TypeGuard

from sprat.errors import InputError, PromptError
from sprat.keywords import check_known
from sprat.runtime.chat.inputs import ROLES
from sprat.runtime.chat.template import ChatTemplate, RenderedPrompt
from sprat.runtime.chat.tools.plan import ToolPlan, with_tools
from sprat.runtime.generate.options import GenerateOptions
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = [
    "ChatOptions",
    "ChatPrompt",
    "ReplyOptions",
    "TemplateOptions",
    "chat_prompt",
    "message_fields",
    "prompt_with_tools",
    "reply_options",
    "split_chat_options",
]

_MAX_REPLIES = 128  # OpenAI's

_RUN = re.compile(b"\0+|\1+")  # of characters that are all the template's, or all from the input


class TemplateOptions(TypedDict, total=False):
    """The keywords of a chat that go to the template.

    ``tools`` and ``documents`` are lists of dicts; ``tool_choice`` and ``parallel_tool_calls`` are OpenAI's;
    ``chat_template`` is the name of one of several templates, such as ``"rag"``; ``chat_template_kwargs`` are further
    variables, such as ``{"enable_thinking": False}``.

    ``volatile`` are texts that change from call to call, such as the time or the state of devices. They are put before
    the text of the last user message, so that all that comes before it stays the same and is not processed again.
    """

    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool
    documents: Sequence[Mapping[str, Any]] | None
    chat_template: str | None
    chat_template_kwargs: Mapping[str, Any] | None
    volatile: Sequence[str] | None


class ChatOptions(GenerateOptions, TemplateOptions, total=False):
    """The keywords of every ``chat``: those of ``generate``, and those that go to the template.

    ``logprobs`` reports the log probability of each token of the answer, and ``top_logprobs`` others in its place;
    ``n`` is the number of replies, of which the i-th has the seed ``seed + i``.
    """

    logprobs: bool
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyOptions:
    """Options of a reply beside its text.

    Attributes:
        logprobs: of each token.
        n: number of replies.

    Raises:
        InputError: a value is out of its range.
    """

    logprobs: bool = False
    n: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.logprobs, bool):
            raise InputError(f"logprobs is {self.logprobs!r}, expected True or False; top_logprobs is a number")
        if not isinstance(self.n, int) or isinstance(self.n, bool) or not 1 <= self.n <= _MAX_REPLIES:
            raise InputError(f"n is {self.n!r}, expected 1 to {_MAX_REPLIES} replies")


def reply_options(options: ChatOptions) -> ReplyOptions:
    """The reply options among the keywords of a ``chat``.

    Raises:
        InputError: a value is out of its range.
    """
    if options.get("top_logprobs") and not options.get("logprobs"):
        raise InputError(
            f"top_logprobs is {options['top_logprobs']!r}, but logprobs is not True; pass logprobs=True too"
        )
    return ReplyOptions(logprobs=options.get("logprobs", False) or False, n=options.get("n", 1))


def split_chat_options(options: ChatOptions) -> tuple[TemplateOptions, GenerateOptions]:
    """The keywords for the template, and those for the generation.

    Raises:
        TypeError: an unknown keyword; the message has the nearest ones.
    """
    names, others = TemplateOptions.__annotations__, ReplyOptions.__dataclass_fields__
    check_known("chat()", options, {**GenerateOptions.__annotations__, **names, **others})
    template = {name: value for name, value in options.items() if name in names}
    generate = {name: value for name, value in options.items() if name not in {*names, *others}}
    return template, generate  # type: ignore[return-value]  # the TypedDicts have the types


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A rendered conversation.

    Attributes:
        text: the prompt.
        tokens: with exactly one BOS, if the model wants one.
        tools: what the answer may call.
    """

    text: str
    tokens: list[int]
    tools: ToolPlan | None = None


def prompt_with_tools(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    options: TemplateOptions | None = None,
    *,
    max_tokens: int | None = None,
) -> ChatPrompt:
    """Like :func:`chat_prompt`, with all that tools need and the template lacks.

    Raises:
        InputError: ``tools`` or ``tool_choice`` are wrong.
    """
    options = options or {}
    _check(messages)
    _check_options(options)
    conversation = with_tools(
        template,
        messages,
        options.get("tools"),
        name=options.get("chat_template"),
        choice=options.get("tool_choice"),
        parallel=options.get("parallel_tool_calls", True),
    )
    adapted: TemplateOptions = {**options, "tools": conversation.tools}
    prompt = chat_prompt(conversation.template, tokenizer, conversation.messages, adapted, max_tokens=max_tokens)
    return replace(prompt, tools=conversation.plan)


def chat_prompt(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    options: TemplateOptions | None = None,
    *,
    max_tokens: int | None = None,
) -> ChatPrompt:
    """Render ``messages`` and encode the prompt.

    Messages and template cannot be encoded separately: where a word spans both, the ids would differ from those the
    model was trained on. So they are rendered together, and the rendered text knows which characters come from the
    input. A special token is the template's if all its characters are; the text between special tokens is encoded as
    plain text.

    Args:
        template: the model's chat template.
        tokenizer: the model's tokenizer.
        messages: the conversation, oldest first.
        options: what else the template is given.
        max_tokens: a prompt that cannot have so few is an error before it is encoded.

    Raises:
        TemplateError: the template fails on these messages.
        PromptError: there is no message, one has no role or content, or the prompt is empty or far too long.
    """
    options = options or {}
    _check(messages)
    _check_options(options)
    messages = _with_volatile(messages, options.get("volatile") or ())
    rendered = template.render_tracked(
        messages,
        tools=options.get("tools"),
        documents=options.get("documents"),
        name=options.get("chat_template"),
        variables=options.get("chat_template_kwargs"),
    )
    _check_roles(messages, rendered.text)
    if max_tokens is not None:
        tokenizer.check_length(rendered.text, max_tokens)
    tokens = tokenizer.with_bos(tokenizer.encode_parts(_parts(rendered, tokenizer)))
    if not tokens:
        raise PromptError("the chat template makes an empty prompt of these messages; use generate() with a prompt")
    return ChatPrompt(rendered.text, tokens)


def _check(messages: Sequence[Mapping[str, Any]]) -> None:
    """Check that ``messages`` are a conversation.

    Raises:
        PromptError: there is none, or one has no role or content.
    """
    if not _is_list(messages) and messages is not None:
        raise PromptError(
            f"the messages are a {type(messages).__name__}, expected a list of dicts: "
            '[{"role": "user", "content": "..."}]'
        )
    if not messages:
        raise PromptError("the conversation is empty, expected at least one message")
    for index, message in enumerate(messages):
        fields = message_fields(message)
        role, content = fields.get("role"), fields.get("content")
        has_others = any(value is not None for name, value in fields.items() if name not in {"role", "content"})
        if not isinstance(role, str) or not (
            isinstance(content, str | list | tuple) or (content is None and has_others)
        ):
            raise PromptError(
                f"message {index} is {repr(message)[:200]}, expected a dict with role and content: two strings, or as "
                "content a list of parts; content may be missing beside other fields, such as tool_calls"
            )


def _check_options(options: TemplateOptions) -> None:
    check_known("encode_chat()", options, TemplateOptions.__annotations__)
    for name in ("tools", "documents"):
        value = options.get(name)
        if value is not None and not (_is_list(value) and not any(map(_is_plain, value))):
            raise PromptError(f"{name} is {repr(value)[:200]}, expected a list of dicts, or None")
    if not isinstance(options.get("parallel_tool_calls", True), bool):
        raise PromptError(f"parallel_tool_calls is {options['parallel_tool_calls']!r}, expected True or False")
    volatile = options.get("volatile")
    if volatile is not None and not (_is_list(volatile) and all(isinstance(text, str) for text in volatile)):
        raise PromptError(f"volatile is {repr(volatile)[:200]}, expected a list of texts, or None")
    variables = options.get("chat_template_kwargs")
    if variables is not None and not (
        isinstance(variables, Mapping) and all(isinstance(key, str) for key in variables)
    ):
        raise PromptError(f"chat_template_kwargs is {variables!r}, expected a dict whose keys are names, or None")


def _with_volatile(messages: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    """``messages`` with ``texts`` before the last user message's text; in a message of their own if there is none."""
    if not texts:
        return messages
    before = "".join(f"{text}\n\n" for text in texts)
    for at in reversed(range(len(messages))):
        fields = message_fields(messages[at])
        if fields.get("role") == "user":
            changed = {**fields, "content": _put_before(before, fields.get("content"))}
            return [*messages[:at], changed, *messages[at + 1 :]]
    return [*messages, {"role": "user", "content": before.rstrip()}]


def _put_before(text: str, content: object) -> object:
    """A message's content behind ``text``: as a part of its own where it has parts."""
    if isinstance(content, str):
        return text + content
    return [{"type": "text", "text": text}, *content] if _is_list(content) else text.rstrip()


def message_fields(message: object) -> Mapping[str, Any]:
    """The fields of a message, which is a dict or an object of a client's library; none if it is no message."""
    return message if isinstance(message, Mapping) else getattr(message, "__dict__", {})


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)


def _is_plain(value: object) -> bool:
    """Whether ``value`` has no fields; objects of OpenAI's client have some."""
    return value is None or isinstance(value, str | bytes | int | float | list | tuple)


def _check_roles(messages: Sequence[Any], text: str) -> None:
    """Check that no message is lost: a template leaves out a role that it does not know."""
    for index, message in enumerate(messages):
        fields = message if isinstance(message, Mapping) else vars(message)
        role, content = fields["role"], fields.get("content")
        if role.lower() not in ROLES and isinstance(content, str) and content.strip() not in text:
            raise PromptError(
                f"message {index} has the role {role!r}, which the chat template leaves out; expected user, assistant, "
                "system or another role of this template"
            )


def _parts(rendered: RenderedPrompt, tokenizer: Tokenizer) -> Iterator[str | int]:
    """The template's special tokens, and the plain text between them in one piece each."""
    for is_text, parts in itertools.groupby(_pieces(rendered, tokenizer), lambda part: isinstance(part, str)):
        if is_text:
            yield "".join(map(str, parts))
        else:
            yield from parts


def _pieces(rendered: RenderedPrompt, tokenizer: Tokenizer) -> Iterator[str | int]:
    for run in _RUN.finditer(rendered.mask):
        text = rendered.text[run.start() : run.end()]
        if rendered.mask[run.start()]:
            yield text
        else:
            yield from tokenizer.special.split(text)
