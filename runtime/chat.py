"""Chat templates: messages to the prompt that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sprat.errors import TemplateError

__all__ = ["ChatTemplate"]


class ChatTemplate:
    """A model's own Jinja template, in a sandbox.

    Args:
        source: The template, as ``tokenizer.chat_template`` or chat_template.jinja hold it.
        bos: Text of the BOS token, for templates that write it.
        eos: Text of the EOS token.

    Raises:
        TemplateError: it is no template, or uses what a chat template has no need of.
    """

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        import jinja2
        import jinja2.sandbox

        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        self.source = source
        self._tokens = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise TemplateError(f"The chat template cannot be read: {error}.") from error

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The prompt of a conversation.

        Raises:
            TemplateError: the template failed or refused these messages.
        """
        import jinja2

        try:
            return self._template.render(
                {**self._tokens, **variables, "messages": messages, "add_generation_prompt": add_generation_prompt}
            )
        except jinja2.TemplateError as error:
            raise TemplateError(f"The chat template failed: {error}.") from error
