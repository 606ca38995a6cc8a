"""``Frontend``: text to token ids and back for one model. An engine shares it with its sessions."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

from sprat.errors import InputError, PromptError, TemplateError
from sprat.progress import no_progress
from sprat.runtime.chat.completions import ChatStream, Message
from sprat.runtime.chat.prompt import ChatPrompt, TemplateOptions, prompt_with_tools
from sprat.runtime.chat.reasoning import ReasoningSplitter
from sprat.runtime.chat.reply import Reply
from sprat.runtime.chat.template import ChatTemplate
from sprat.runtime.chat.tools.plan import ToolPlan
from sprat.runtime.chat.tools.splitter import ToolCallSplitter
from sprat.runtime.generate.constraint.answer import AnswerGuides
from sprat.runtime.generate.generation import Generation, PrefillSpeed
from sprat.runtime.generate.options import GenerateOptions, rules_of, split_options
from sprat.runtime.generate.reasoning_guide import OPEN, ReasoningTokens
from sprat.runtime.generate.sampling import Sampler
from sprat.runtime.generate.sampling_defaults import SamplingDefaults
from sprat.runtime.generate.speculate.speculator import Speculation
from sprat.runtime.generate.transcript import Transcript
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["Frontend"]

_MIN_OPTIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontend:
    """Tokenizer, chat template and settings: what generation needs besides the backend.

    Attributes:
        tokenizer: the model's tokenizer.
        template: the model's chat template, or ``None``.
        vocab_size: rows of the embedding.
        context: tokens of prompt and answer together.
        batch: prompt tokens of one forward pass.
        name: the model's name, for chat completions.
        sampling: the model's sampling parameters, for those that a caller does not give.
        speed: of the last chunk of a prompt.
        speculation: guesses tokens; ``None`` for one pass for each.
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    vocab_size: int
    context: int
    batch: int
    name: str
    sampling: SamplingDefaults
    speed: PrefillSpeed = field(default_factory=PrefillSpeed)
    speculation: Speculation | None = None

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Token ids of a prompt, checked.

        Raises:
            PromptError: the prompt is empty or far too long, or a token id is outside the vocabulary.
        """
        if isinstance(prompt, str):
            self.tokenizer.check_length(prompt, self.context)
            tokens = self.tokenizer.encode(prompt, add_bos=True)
        else:
            tokens = _token_ids(prompt, self.context)
        if not tokens:
            raise PromptError("the prompt is empty, and this model has no BOS token; pass at least one token")
        outside = [token for token in tokens if not 0 <= token < self.vocab_size]
        if outside:
            raise PromptError(
                f"the prompt holds token ids outside the vocabulary: {outside[:5]}, expected 0 to "
                f"{self.vocab_size - 1}; encode it with this model's tokenizer"
            )
        return tokens

    def encode_between(self, before: str, after: str) -> list[int]:
        """Token ids of the prompt that asks for the text between ``before`` and ``after``.

        Raises:
            PromptError: ``after`` is no text, the model has no tokens for that, or the texts are far too long.
        """
        if not isinstance(after, str):
            raise PromptError(f"the suffix is {after!r}, expected text")
        tokens = self.tokenizer.vocabulary.fill_in_middle
        if tokens is None:
            raise PromptError(
                f"{self.name} has no fill-in-the-middle tokens (such as <｜fim▁begin｜>), expected for a suffix; use a "
                "code model, for example DeepSeek-Coder-V2-Lite, or leave the suffix out"
            )
        for text in (before, after):
            self.tokenizer.check_length(text, self.context)
        return self.tokenizer.with_bos(self.tokenizer.encode_parts(tokens.parts(before, after)))

    def encode_options(self, options: Sequence[str]) -> dict[str, list[int]]:
        """Option -> token ids, as they continue a prompt.

        Raises:
            InputError: there are fewer than two options, one is no text or empty, or one appears twice.
        """
        if isinstance(options, str | bytes) or not isinstance(options, Sequence) or len(options) < _MIN_OPTIONS:
            raise InputError(f"options are {options!r}, expected a list of at least {_MIN_OPTIONS} texts")
        wrong = [option for option in options if not isinstance(option, str) or not option]
        if wrong or len(set(options)) < len(options):
            raise InputError(f"options are {list(options)!r}, expected different texts, none of them empty")
        anchor = 0  # a token before the option, so that no tokenizer takes it for the first word of a text
        return {option: self.tokenizer.encode_parts([anchor, option])[1:] for option in options}

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], options: TemplateOptions | None = None) -> ChatPrompt:
        """Render a conversation with the chat template, and encode it.

        Args:
            messages: the conversation, oldest first.
            options: what else the template is given.

        Raises:
            TemplateError: the model has no chat template, or it fails on these messages.
            PromptError: there is no message, one has no role or content, or the conversation is far too long.
        """
        if self.template is None:
            raise TemplateError(f"{self.name} has no chat template; pass a prompt to generate() instead")
        try:
            return prompt_with_tools(self.template, self.tokenizer, messages, options, max_tokens=self.context)
        except TemplateError as error:
            raise TemplateError(f"{self.name}: {error}; generate() continues a prompt without it") from error

    def answer_tokens(self, prompt: ChatPrompt) -> list[int]:
        """The tokens of ``prompt``, after which the answer begins: reasoning that it opens is closed again."""
        if not prompt.text.rstrip().endswith(OPEN):
            return prompt.tokens
        return [*prompt.tokens, *ReasoningTokens.of(self.tokenizer).closing]

    def generate(
        self,
        transcript: Transcript,
        prompt: Sequence[int],
        options: GenerateOptions,
        *,
        continues: bool,
        tools: ToolPlan | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> Generation:
        """Start generation after ``prompt``; the prefix that is in the cache of ``transcript`` is reused.

        Args:
            transcript: the stream to continue.
            prompt: token ids of the whole prompt, checked.
            options: sampling parameters and stop conditions.
            continues: the answer continues the text of the prompt; otherwise it begins a message.
            tools: what the answer may call.
            on_end: called once, when the answer has ended.

        Raises:
            PromptError: the prompt fills the context.
            InputError: an option is out of its range.
        """
        sampling, stop_conditions = split_options(options, self.sampling)
        rules = rules_of(options)
        if outside := [token for token in sampling.logit_bias if token >= self.vocab_size]:
            raise InputError(f"logit_bias has the token id {outside[0]}, expected 0 to {self.vocab_size - 1}")
        if len(prompt) >= transcript.capacity:
            raise PromptError(
                f"the prompt has {len(prompt)} tokens, the context holds {transcript.capacity} for prompt and answer; "
                "shorten the prompt, or load the model with a larger context"
            )
        room = transcript.capacity - len(prompt)
        calls = None if tools is None else tools.rules(self.tokenizer)
        max_tokens = min(stop_conditions.max_tokens or room, room)
        guides = AnswerGuides(self.tokenizer, self.vocab_size, rules, max_tokens, calls)
        guide = guides.guide(prompt, may_reason=not continues)
        transcript.rewind(prompt)
        return Generation(
            transcript,
            prompt,
            sampler=Sampler(sampling),
            decoder=self.tokenizer.stream_decoder(continues=continues, shown=calls.shown if calls else frozenset()),
            eog_ids=self.tokenizer.eog_ids,
            stop_conditions=stop_conditions,
            guide=guide,
            n_alternatives=rules.top_logprobs,
            batch=self.batch,
            speed=self.speed,
            speculation=self.speculation,
            on_prefill=options.get("on_prefill", no_progress),
            on_end=on_end,
        )

    def reply(
        self,
        prompt: ChatPrompt,
        generations: Generator[Generation],
        *,
        logprobs: bool = False,
        on_reply: Callable[[Message], None] = lambda _reply: None,
    ) -> ChatStream:
        """The reply as chunks, with reasoning and tool calls separated from the answer.

        Args:
            prompt: the rendered conversation.
            generations: the answers; closed after the last one.
            logprobs: report log probabilities.
            on_reply: called with each complete reply.
        """

        def new_reply() -> Reply:
            calls = None if prompt.tools is None else ToolCallSplitter(prompt.tools.format)
            return Reply(ReasoningSplitter(prompt.text), calls, self.shown_bytes if logprobs else None)

        return ChatStream(generations, new_reply, model=self.name, on_reply=on_reply)

    def shown_bytes(self, token_id: int) -> bytes:
        """The bytes of a token, special tokens included."""
        return self.tokenizer.token_bytes(token_id) or self.tokenizer.special_text(token_id).encode()


def _token_ids(prompt: object, context: int) -> list[int]:
    """The token ids of a prompt that is not text; bytes are neither. Of an iterator, no more than are too many."""
    if isinstance(prompt, Iterable) and not isinstance(prompt, bytes | bytearray | memoryview | Mapping):
        try:
            limit = None if isinstance(prompt, Sized) else context + 1
            return [operator.index(token) for token in itertools.islice(prompt, limit)]
        except TypeError:
            found = f"a {type(prompt).__name__} that does not hold integers"
    else:
        found = f"a {type(prompt).__name__}"
    raise PromptError(f"the prompt is {found}, expected text (str) or a sequence of token ids")
