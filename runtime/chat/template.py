"""Chat templates: a list of messages to a prompt in the format that the model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sprat.errors import TemplateError

__all__ = ["ChatTemplate"]

_MAX_SOURCE_LENGTH = 1 << 18  # characters; the longest template of a published model known to us has 17,000

# the exceptions that a compiled template can raise
_TEMPLATE_ERRORS = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


class ChatTemplate:
    """A model's Jinja template, in a sandbox with limits on time and output.

    Args:
        source: the template, from ``tokenizer.chat_template`` or chat_template.jinja.
        bos: text of the BOS token, for templates that write it.
        eos: text of the EOS token.

    Raises:
        TemplateError: the source is not a template, or uses a feature that the sandbox does not allow.
    """

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        import jinja2

        from sprat.runtime.chat.sandbox import TemplateEnvironment

        if len(source) > _MAX_SOURCE_LENGTH:
            raise TemplateError(
                f"the chat template has {len(source)} characters, expected at most {_MAX_SOURCE_LENGTH}"
            )
        self.source = source
        self._tokens = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = TemplateEnvironment().from_string(source)
        except TemplateError:
            raise
        except (jinja2.TemplateError, SyntaxError, *_TEMPLATE_ERRORS) as error:
            raise TemplateError(f"the chat template cannot be parsed: {_reason(error)}") from error

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """Render a conversation as a prompt.

        Args:
            messages: dicts with at least ``role`` and ``content``, oldest first.
            add_generation_prompt: end with the text after which the model answers.
            **variables: other variables of the template, such as ``tools`` or ``enable_thinking``.

        Raises:
            TemplateError: the template failed, rejected these messages, or exceeded its budget.
        """
        import jinja2

        from sprat.runtime.chat.budget import Budget, plain
        from sprat.runtime.chat.sandbox import rendering

        inputs = plain({**self._tokens, **variables, "messages": list(messages)})
        budget = Budget()
        token = rendering.set(budget)
        try:
            budget.checked(inputs)
            rendered = self._template.render({**inputs, "add_generation_prompt": add_generation_prompt})
            return str(budget.checked(rendered))
        except TemplateError:
            raise
        except (jinja2.TemplateError, *_TEMPLATE_ERRORS) as error:
            raise TemplateError(f"the chat template failed: {_reason(error)}") from error
        finally:
            rendering.reset(token)


def _reason(error: BaseException) -> str:
    return f"{error}".rstrip(".") or type(error).__name__
