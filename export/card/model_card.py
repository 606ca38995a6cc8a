"""The README.md of a bundle: a model card in the form of the Hugging Face Hub, with how to run it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sprat.runtime.files.bundle import TensorGroup
from sprat.text import human_bytes

__all__ = ["CardFacts", "model_card"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What the card states.

    Attributes:
        name: the model's name.
        base_model: the name of the source.
        recipe: the formats of the weights, as the manifest has them.
        groups: formats and sizes by role.
        files: artifact format -> name of its main file.
        device: the profile that the formats were chosen for.
        context: tokens that the KV cache is planned for.
        runs_in_genai: whether onnxruntime-genai loads the ONNX model.
        has_modelfile: whether a Modelfile is beside the GGUF.
    """

    name: str
    base_model: str
    recipe: str
    groups: Sequence[TensorGroup]
    files: Mapping[str, str]
    device: str | None
    context: int
    runs_in_genai: bool
    has_modelfile: bool


def model_card(facts: CardFacts) -> str:
    """The text of the card."""
    return "\n\n".join([_front_matter(facts), *_body(facts)]) + "\n"


def _front_matter(facts: CardFacts) -> str:
    tags = ["sprat", *facts.files, "quantized"]
    lines = [f"base_model: {json.dumps(facts.base_model)}", "base_model_relation: quantized"]
    lines += [f"library_name: {'gguf' if 'gguf' in facts.files else 'onnx'}", "pipeline_tag: text-generation"]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _body(facts: CardFacts) -> Iterator[str]:
    n_weights = sum(group.n_weights for group in facts.groups)
    n_bytes = sum(group.size_bytes for group in facts.groups)
    yield f"# {facts.name}, {facts.recipe}"
    yield (
        f"{facts.base_model}, quantized with [sprat](https://pypi.org/project/sprat/): {n_weights:,} weights in "
        f"{human_bytes(n_bytes)}, {8 * n_bytes / n_weights:.2f} bits per weight. The licence is the base model's."
    )
    if facts.device:
        yield f"The formats were chosen for the device profile `{facts.device}`."
    yield "\n".join(_tensor_table(facts.groups))
    yield "## Quality"
    artifact = shlex.quote(f"./{next(iter(facts.files.values()))}")
    yield (
        "Not measured when this card was written. `sprat verify` prints KL divergence and same top token against the "
        f"base model:\n\n    sprat verify {artifact} --source BASE_MODEL"
    )
    yield "## Run it"
    yield from _ways_to_run(facts)


def _tensor_table(groups: Sequence[TensorGroup]) -> Iterator[str]:
    yield "| tensors | format | count | size |"
    yield "|---|---|---|---|"
    for group in groups:
        yield f"| `{group.role}` | {group.format} | {group.n_tensors} | {human_bytes(group.size_bytes)} |"


def _ways_to_run(facts: CardFacts) -> Iterator[str]:
    yield _way("sprat", f"pip install sprat\nsprat chat . --context {facts.context}")
    if "gguf" in facts.files:
        file = shlex.quote(facts.files["gguf"])
        yield _way("llama.cpp", f"llama-cli -m {file} -c {facts.context} --jinja")
    if facts.has_modelfile:
        yield _way("Ollama", "ollama create my-model -f Modelfile\nollama run my-model")
    if facts.runs_in_genai:
        yield _way("onnxruntime-genai", _GENAI, language="python")
    elif "onnx" in facts.files:
        yield _way("onnxruntime", _ORT.format(file=json.dumps(facts.files["onnx"])), language="python")


def _way(title: str, code: str, *, language: str = "sh") -> str:
    return f"{title}:\n\n```{language}\n{code}\n```"


_GENAI = """\
import onnxruntime_genai as og

model = og.Model(".")
tokenizer = og.Tokenizer(model)
generator = og.Generator(model, og.GeneratorParams(model))
generator.append_tokens(tokenizer.encode("Hello"))
while not generator.is_done():
    generator.generate_next_token()
print(tokenizer.decode(generator.get_sequence(0)))"""
_ORT = """\
import onnxruntime

session = onnxruntime.InferenceSession({file})   # the loop over its inputs and outputs: sprat's docs/onnx.md"""
