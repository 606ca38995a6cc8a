"""``sprat demo``: export, verify and run the packaged student, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from sprat.app.export import export
from sprat.app.load import load
from sprat.app.verify import verify
from sprat.arrays import I32Array
from sprat.demo.tasks import prose
from sprat.export.pipeline import ExportResult
from sprat.export.verify.verify import Verification
from sprat.progress import ReportProgress
from sprat.runtime.backends.reference import ReferenceBackend
from sprat.runtime.chat.completions import ChatCompletion, Message
from sprat.runtime.chat.prompt import chat_prompt
from sprat.runtime.chat.template_files import template_from_metadata
from sprat.runtime.engine import Engine
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.gguf_spec import spec_of
from sprat.runtime.files.model_file import find_model
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["DEVICE", "Answer", "DemoStep", "RoutedExperts", "StepResult", "demo"]

DEVICE = "rpi5-8gb"
STORY = "Mia has 347 stamps. A friend gives Mia 285 more. Then Mia sells 96 of them. How many stamps does Mia have now?"
COMMAND = "Could you dim the bedroom light to 40 percent in ten minutes?"

_VERIFY_TOKENS = 512
_MAX_KLD = 0.25  # the file measures 0.001 on this text (int4: 0.006); a broken tensor costs far more


@dataclass(frozen=True, slots=True)
class Answer:
    """A prompt and the reply to it."""

    prompt: str
    completion: ChatCompletion


@dataclass(frozen=True, slots=True)
class RoutedExperts:
    """The experts that the router selected for the tokens of one prompt.

    Attributes:
        n_tokens: tokens of the prompt.
        n_experts: routed experts per layer.
        layers: MoE layer: the experts of each token, ``(n_tokens, n_experts_per_token)``.
    """

    n_tokens: int
    n_experts: int
    layers: dict[int, I32Array]


StepResult: TypeAlias = ExportResult | Verification | Answer | RoutedExperts


@dataclass(frozen=True, slots=True)
class DemoStep:
    """One step of the demo: what it does, and the call that does it."""

    title: str
    run: Callable[[ReportProgress], StepResult]


def demo(out: Path) -> Iterator[DemoStep]:
    """Export the packaged student for a Raspberry Pi, verify it, chat with it, and observe its routing.

    Run each step before taking the next one: a step reads the files of the steps before it.

    Args:
        out: the bundle's folder; an existing bundle is replaced.

    Raises:
        InputError: ``out`` cannot be loaded as a bundle.
    """
    yield DemoStep(f"Export the student for {DEVICE}, in the bytes of int4", partial(_export, out))
    yield DemoStep("Verify it against its source", partial(_verify, out))
    with load(out, device=DEVICE) as engine:
        yield DemoStep(f"Solve a word problem (backend {engine.backend.name})", partial(_answer, engine, STORY))
        yield DemoStep("Turn a command into JSON", partial(_answer, engine, COMMAND))
    yield DemoStep("Show the experts that were routed to for that command", partial(_route, out, COMMAND))


def _export(out: Path, progress: ReportProgress) -> ExportResult:
    return export("demo", out, quant="int4", quality="fast", device=DEVICE, force=True, progress=progress)


def _verify(out: Path, progress: ReportProgress) -> Verification:
    """Verify on held-out prose, not on problems: the student is trained to answer those, not to write them."""
    text = "\n\n".join(problem.answer for problem in prose.held_out_texts(limit=8))
    return verify(
        out,
        "demo",
        text=text,
        backends=("reference",),
        max_kld=_MAX_KLD,
        max_tokens=_VERIFY_TOKENS,
        progress=progress,
    )


def _answer(engine: Engine, prompt: str, progress: ReportProgress) -> Answer:
    messages = [Message(role="user", content=prompt)]
    return Answer(prompt, engine.chat(messages, temperature=0.0, max_tokens=200, on_prefill=progress))


def _route(out: Path, prompt: str, _progress: ReportProgress) -> RoutedExperts:
    """Observe the router while the NumPy backend reads ``prompt``."""
    selected: dict[int, list[I32Array]] = {}

    def observe(layer: int, experts: I32Array) -> None:
        selected.setdefault(layer, []).append(experts)

    with GGUFFile.open(find_model(out)) as file:
        spec = spec_of(file)
        tokenizer = Tokenizer.from_gguf(file.metadata)
        template = template_from_metadata(file.metadata)
        assert template is not None, "the packaged student has a chat template"
        assert spec.moe is not None, "the packaged student is an MoE model"
        tokens = chat_prompt(template, tokenizer, [Message(role="user", content=prompt)]).tokens
        stream = ReferenceBackend(spec, file, dense_bytes=0).new_stream(len(tokens), observe)
        stream.forward(tokens)
    layers = {layer: np.concatenate(parts) for layer, parts in selected.items()}
    return RoutedExperts(len(tokens), spec.moe.n_routed_experts, layers)
