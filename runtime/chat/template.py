"""Chat templates: messages to the prompt that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sprat.errors import TemplateError

__all__ = ["ChatTemplate"]

_LONGEST_SOURCE = 1 << 18  # characters; the longest template of a published model that we know has 17,000

# what the code of a template can raise
_MISTAKES = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


class ChatTemplate:
    """A model's own Jinja template, in a sandbox with limits on time and output.

    Args:
        source: The template, as ``tokenizer.chat_template`` or chat_template.jinja hold it.
        bos: Text of the BOS token, for templates that write it.
        eos: Text of the EOS token.

    Raises:
        TemplateError: it is no template, or uses what a chat template has no need of.
    """

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        import jinja2

        from sprat.runtime.chat.sandbox import TemplateEnvironment

        if len(source) > _LONGEST_SOURCE:
            raise TemplateError(f"The chat template has {len(source)} characters, expected at most {_LONGEST_SOURCE}.")
        self.source = source
        self._tokens = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = TemplateEnvironment().from_string(source)
        except TemplateError:
            raise
        except (jinja2.TemplateError, SyntaxError, *_MISTAKES) as error:
            raise TemplateError(f"The chat template cannot be read: {_reason(error)}.") from error

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The prompt of a conversation.

        Args:
            messages: Dicts with at least ``role`` and ``content``, oldest first.
            add_generation_prompt: End with what makes the model answer.
            **variables: What else the template reads: ``tools``, ``enable_thinking``.

        Raises:
            TemplateError: the template failed, refused these messages, or was stopped.
        """
        import jinja2

        from sprat.runtime.chat.budget import Budget, plain
        from sprat.runtime.chat.sandbox import rendering

        given = plain({**self._tokens, **variables, "messages": list(messages)})
        budget = Budget()
        token = rendering.set(budget)
        try:
            budget.checked(given)
            return str(budget.checked(self._template.render({**given, "add_generation_prompt": add_generation_prompt})))
        except TemplateError:
            raise
        except (jinja2.TemplateError, *_MISTAKES) as error:
            raise TemplateError(f"The chat template failed: {_reason(error)}.") from error
        finally:
            rendering.reset(token)


def _reason(error: BaseException) -> str:
    return f"{error}".rstrip(".") or type(error).__name__
