"""Chat templates: a list of messages to a prompt in the format that the model was trained on."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sprat.errors import TemplateError
from sprat.text import printable

if TYPE_CHECKING:
    import jinja2

__all__ = ["DEFAULT_NAME", "ChatTemplate", "RenderedPrompt"]

DEFAULT_NAME = "default"
_TOOL_NAME = "tool_use"  # transformers takes the template of this name for a conversation with tools

_MAX_SOURCE_LENGTH = 1 << 18  # characters; the longest template of a published model known to us has 17,000
_MAX_REASON_LENGTH = 300


class RenderedPrompt:
    """A rendered conversation, and where its characters come from.

    Attributes:
        text: the prompt.
        mask: one byte per character: 1 if it comes from a message, a tool, a document or a variable; 0 if it is the
            template's.
    """

    __slots__ = ("mask", "text")

    def __init__(self, text: str, mask: bytes) -> None:
        self.text = text
        self.mask = mask


class ChatTemplate:
    """A model's Jinja templates, in a sandbox with limits on time and output.

    A template is compiled when it is used first: a model whose template is invalid can still be loaded.

    Args:
        sources: the template, or name -> template; ``default`` is used for every conversation, except that ``tool_use``
            is used for one with tools.
        special_tokens: ``bos_token``, ``eos_token`` and so on, as tokenizer_config.json has them, for templates that
            write them.
    """

    def __init__(self, sources: str | Mapping[str, str], special_tokens: Mapping[str, str] | None = None) -> None:
        self.sources = {DEFAULT_NAME: sources} if isinstance(sources, str) else dict(sources)
        self._special_tokens = dict(special_tokens or {})

    def render(
        self,
        messages: Sequence[Any],
        *,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        name: str | None = None,
        **variables: Any,
    ) -> str:
        """Render a conversation as a prompt; see :meth:`render_tracked`."""
        return self.render_tracked(
            messages,
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            name=name,
            variables=variables,
        ).text

    def render_tracked(
        self,
        messages: Sequence[Any],
        *,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        name: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> RenderedPrompt:
        """Render a conversation as a prompt, and tell the template's characters from those of the input.

        Args:
            messages: dicts with at least ``role`` and ``content``, oldest first.
            tools: descriptions of functions as JSON schemas.
            documents: dicts with ``title`` and ``text``, for models that answer from documents.
            add_generation_prompt: end with the text after which the model answers.
            name: which of several templates.
            variables: other variables of the template, such as ``thinking`` or ``enable_thinking``.

        Raises:
            TemplateError: the template cannot be parsed, failed, rejected these messages, or exceeded its budget.
            PromptError: messages, tools and variables are together larger than a template may read.
        """
        from sprat.runtime.chat.budget import Budget, rendering
        from sprat.runtime.chat.inputs import charge_inputs, template_inputs
        from sprat.runtime.chat.tracked_text import mask_of

        inputs = template_inputs(messages, tools=tools, documents=documents, variables=variables or {})
        compiled = self._compiled(self._select(name, has_tools=tools is not None))
        budget = Budget()
        charge_inputs(budget, inputs)
        token = rendering.set(budget)
        try:
            text = compiled.render({**self._special_tokens, **inputs, "add_generation_prompt": add_generation_prompt})
            return RenderedPrompt(str.__str__(budget.checked(text)), mask_of(text))
        except TemplateError:
            raise
        except Exception as error:  # a template is a program of a stranger: it may raise anything
            raise TemplateError(f"the chat template failed: {_reason(error)}") from error
        finally:
            rendering.reset(token)

    def source(self, name: str | None, *, has_tools: bool) -> str:
        """The source of the template that is used.

        Raises:
            TemplateError: there is none of this name.
        """
        return self.sources[self._select(name, has_tools=has_tools)]

    def after(self, prelude: str) -> ChatTemplate:
        """These templates, each after the source ``prelude``."""
        return ChatTemplate({name: prelude + source for name, source in self.sources.items()}, self._special_tokens)

    def check(self) -> None:
        """Parse all templates.

        Raises:
            TemplateError: one is not a template, or uses a feature that the sandbox does not allow.
        """
        for name in self.sources:
            self._compiled(name)

    def _select(self, name: str | None, *, has_tools: bool) -> str:
        """The name of the template to use, as transformers chooses."""
        if name is not None and not isinstance(name, str):
            raise TemplateError(f"chat_template is a {type(name).__name__}, expected the name of one of the model's")
        wanted = name or (_TOOL_NAME if has_tools and _TOOL_NAME in self.sources else DEFAULT_NAME)
        if wanted not in self.sources:
            known = ", ".join(sorted(self.sources))
            raise TemplateError(f"the model has no chat template called {wanted!r}; pass the name of one: {known}")
        return wanted

    def _compiled(self, name: str) -> jinja2.Template:
        return _compile(self.sources[name])


@functools.lru_cache(maxsize=16)
def _compile(source: str) -> jinja2.Template:
    from sprat.runtime.chat.sandbox import TemplateEnvironment

    if len(source) > _MAX_SOURCE_LENGTH:
        raise TemplateError(f"the chat template has {len(source)} characters, expected at most {_MAX_SOURCE_LENGTH}")
    try:
        return TemplateEnvironment().from_string(source)
    except TemplateError:
        raise
    except Exception as error:  # Jinja's, and those of Python's compiler
        raise TemplateError(f"the chat template cannot be parsed: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The message of ``error``, which a template may have made: without control characters and addresses."""
    text = printable(f"{error}"[:_MAX_REASON_LENGTH]).rstrip(".")
    return re.sub(r"\b0x[0-9a-fA-F]{6,}", "0x…", text) or type(error).__name__
