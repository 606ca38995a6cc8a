"""The README.md of a bundle: a model card in the form of the Hugging Face Hub, with how to run it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from sprat.quant.quality import Quality
from sprat.runtime.files.bundle import Manifest, TensorGroup
from sprat.text import human_bytes

__all__ = ["measured_card", "model_card"]

_SECTION = re.compile(r"^## Quality\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_NOT_MEASURED = """\
## Quality

Not measured yet. `sprat verify` prints KL divergence and same top token against the base model, and `--card` writes
them here:

    sprat verify . --source BASE_MODEL --card"""


def model_card(manifest: Manifest, *, context: int, has_modelfile: bool) -> str:
    """The text of the card, without a measurement.

    Args:
        manifest: of the bundle.
        context: tokens that the KV cache is planned for.
        has_modelfile: whether a Modelfile is beside the GGUF.
    """
    files = {artifact.format: artifact.file for artifact in manifest.artifacts}
    parts = [*_head(manifest, files), _NOT_MEASURED, "## Run it", *_ways_to_run(manifest, files, context)]
    if has_modelfile:
        parts.append(_way("Ollama", "ollama create my-model -f Modelfile\nollama run my-model"))
    return "\n\n".join(parts) + "\n"


def measured_card(card: str, base: str, quality: Mapping[str, Quality]) -> str:
    """``card`` with its section on quality replaced by a measurement; the rest stays as it is, edited or not.

    Args:
        card: the text of the card.
        base: the name of what the artifact was compared with.
        quality: backend -> statistics.
    """
    rows = "\n".join(
        f"| {backend} | {found.mean_kld:.4f} ± {found.kld.error:.4f} | {found.same_top.value:.1%} "
        f"| {found.ratio.value:.4f} ± {found.ratio.error:.4f} | {found.n_tokens:,} |"
        for backend, found in quality.items()
    )
    section = (
        f"## Quality\n\nCompared with {base} by `sprat verify`, on the second half of every window of text:\n\n"
        "| backend | mean KL divergence in nats | same top token | perplexity / base | tokens |\n"
        f"|---|---|---|---|---|\n{rows}\n\n"
    )
    if _SECTION.search(card):
        return _SECTION.sub(lambda _: section, card, count=1)
    return f"{card.rstrip()}\n\n{section}"


def _head(manifest: Manifest, files: Mapping[str, str]) -> Iterator[str]:
    yield _front_matter(manifest, files)
    n_weights = sum(group.n_weights for group in manifest.tensor_groups)
    n_bytes = sum(group.size_bytes for group in manifest.tensor_groups)
    yield f"# {manifest.name}, {manifest.recipe}"
    yield (
        f"{manifest.source.name}, quantized with [sprat](https://pypi.org/project/sprat/): {n_weights:,} weights in "
        f"{human_bytes(n_bytes)}, {8 * n_bytes / n_weights:.2f} bits per weight. The licence is the base model's."
    )
    if manifest.device:
        yield f"The formats were chosen for the device profile `{manifest.device}`."
    yield "\n".join(_tensor_table(manifest.tensor_groups))


def _front_matter(manifest: Manifest, files: Mapping[str, str]) -> str:
    tags = ["sprat", *files, "quantized"]
    lines = [f"base_model: {json.dumps(manifest.source.name)}", "base_model_relation: quantized"]
    lines += [f"library_name: {'gguf' if 'gguf' in files else 'onnx'}", "pipeline_tag: text-generation"]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _tensor_table(groups: Sequence[TensorGroup]) -> Iterator[str]:
    yield "| tensors | format | count | size |"
    yield "|---|---|---|---|"
    for group in groups:
        yield f"| `{group.role}` | {group.format} | {group.n_tensors} | {human_bytes(group.size_bytes)} |"


def _ways_to_run(manifest: Manifest, files: Mapping[str, str], context: int) -> Iterator[str]:
    yield _way("sprat", f"pip install sprat\nsprat chat . --context {context}")
    if "gguf" in files:
        yield _way("llama.cpp", f"llama-cli -m {shlex.quote(files['gguf'])} -c {context} --jinja")
    if any(file.name == "genai_config.json" for file in manifest.files):
        yield _way("onnxruntime-genai", _GENAI, language="python")
    elif "onnx" in files:
        yield _way("onnxruntime", _ORT.format(file=json.dumps(files["onnx"])), language="python")


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
