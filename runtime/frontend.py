"""``Frontend``: from text to token ids and back, for one model; what an engine shares with its sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sprat.errors import PromptError, TemplateError
from sprat.runtime.chat.completions import ChatStream, Message
from sprat.runtime.chat.prompt import ChatPrompt, chat_prompt
from sprat.runtime.chat.reasoning import ReasoningSplitter
from sprat.runtime.chat.template import ChatTemplate
from sprat.runtime.generate.generation import Generation
from sprat.runtime.generate.options import GenerateOptions, split_options
from sprat.runtime.generate.sampling import Sampler
from sprat.runtime.generate.transcript import Transcript
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["Frontend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontend:
    """Tokenizer, chat template and what else an answer needs beside the weights.

    Attributes:
        tokenizer: of the model.
        template: how a conversation becomes a prompt; ``None`` for a model without one.
        vocab_size: rows of the embedding.
        batch: tokens of a prompt in one forward pass.
        name: the model's name, for chat results.
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    vocab_size: int
    batch: int
    name: str

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Token ids of a prompt, checked.

        Raises:
            PromptError: the prompt is empty, or an id lies beyond the vocabulary.
        """
        tokens = self.tokenizer.encode(prompt, add_bos=True) if isinstance(prompt, str) else list(prompt)
        if not tokens:
            raise PromptError(
                "the prompt is empty, and this model has no token that begins a text; give it at least one"
            )
        beyond = [token for token in tokens if not 0 <= token < self.vocab_size]
        if beyond:
            raise PromptError(
                f"the prompt holds token ids beyond the vocabulary: {beyond[:5]}, expected 0 to "
                f"{self.vocab_size - 1}; encode it with this model's tokenizer"
            )
        return tokens

    def encode_chat(self, messages: Sequence[Message]) -> ChatPrompt:
        """The prompt that the chat template makes of a conversation.

        Raises:
            TemplateError: the model has no chat template, or it fails on these messages.
            PromptError: a message without text.
        """
        if self.template is None:
            raise TemplateError(f"{self.name} has no chat template; use generate() with a prompt of your own")
        return chat_prompt(self.template, self.tokenizer, messages)

    def generate(
        self,
        transcript: Transcript,
        prompt: Sequence[int],
        options: GenerateOptions,
        *,
        continues: bool,
        on_end: Callable[[], None] = lambda: None,
    ) -> Generation:
        """Begin an answer to checked token ids; the prefix that ``transcript`` holds already is reused.

        Args:
            transcript: the token stream to extend.
            prompt: the whole prompt.
            options: the caller's keywords.
            continues: the answer continues the prompt's text, rather than beginning a message.
            on_end: called once when the answer has ended.

        Raises:
            PromptError: the prompt leaves no room for an answer.
            InputError: an option is out of its range.
        """
        sampling, limits = split_options(options)
        if len(prompt) >= transcript.capacity:
            raise PromptError(
                f"the prompt has {len(prompt)} tokens, the context holds {transcript.capacity} with the answer; "
                "shorten the prompt, or load the model with a larger context"
            )
        transcript.rewind(prompt)
        return Generation(
            transcript,
            prompt,
            sampler=Sampler(sampling),
            decoder=self.tokenizer.stream_decoder(continues=continues),
            end_ids=self.tokenizer.eos_ids,
            limits=limits,
            batch=self.batch,
            on_end=on_end,
        )

    def reply(
        self,
        prompt: ChatPrompt,
        generation: Generation,
        on_reply: Callable[[Message], None] = lambda _reply: None,
    ) -> ChatStream:
        """The chunks of a reply, with the reasoning apart from the answer.

        Args:
            prompt: the rendered conversation.
            generation: the answer to it.
            on_reply: called with the reply once it is complete.
        """
        return ChatStream(generation, ReasoningSplitter(prompt.text), model=self.name, on_reply=on_reply)
