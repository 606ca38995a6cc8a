"""Convert a :class:`~sprat.runtime.arch.spec.ModelSpec` to GGUF metadata and back (llama.cpp's keys, ``gguf.Keys``).

An unknown key is an error that names it, since it may change the computation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sprat.errors import ConfigError, unknown_name
from sprat.runtime.arch.architecture import architectures
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.gguf_tolerated import HARMLESS, take_unused, usual_keys
from sprat.runtime.arch.rope import FrequencyFactors, LinearScaling, YarnScaling
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.weights import WeightSource

__all__ = ["keys_of_spec", "llamacpp_differences", "metadata_from_spec", "spec_from_metadata"]


def metadata_from_spec(spec: ModelSpec) -> dict[str, Any]:
    """The keys of a file that llama.cpp runs, as :func:`keys_of_spec` has them.

    Raises:
        ConfigError: llama.cpp would reject the file, or compute something else.
    """
    if problems := [*architectures()[spec.architecture].why_not_llamacpp(spec), *_why_not_scaling(spec)]:
        raise ConfigError(
            f"llama.cpp cannot run this {spec.architecture} model: {'; '.join(problems)}; export it with --format onnx"
        )
    return keys_of_spec(spec)


def keys_of_spec(spec: ModelSpec) -> dict[str, Any]:
    """The keys under the architecture's prefix; the writer adds ``general.*`` and ``tokenizer.*``.

    Llama 3.1's RoPE scaling has no key: it is the tensor ``rope_freqs.weight``.
    """
    metadata: dict[str, Any] = {
        "block_count": spec.n_layers + spec.n_mtp_layers,
        "context_length": spec.max_context,
        "embedding_length": spec.hidden_size,
        "feed_forward_length": spec.intermediate_size,
        "attention.head_count": spec.attention.n_heads,
        "attention.layer_norm_rms_epsilon": spec.rms_norm_eps,
        **spec.attention.gguf_keys(),
        **(spec.moe.gguf_keys() if spec.moe else {}),
        **architectures()[spec.architecture].gguf_keys(spec),
        "rope.dimension_count": spec.rope.dim,
        "rope.freq_base": spec.rope.theta,
        **_scaling_keys(spec),
        **({"nextn_predict_layers": spec.n_mtp_layers} if spec.n_mtp_layers else {}),
        "vocab_size": spec.vocab_size,
    }
    return {f"{spec.architecture}.{key}": value for key, value in metadata.items()}


def spec_from_metadata(metadata: Mapping[str, Any], weights: WeightSource) -> ModelSpec:
    """Read the keys of a file, and from its tensors tied embeddings, biases and RoPE factors, which have no key.

    Args:
        metadata: all metadata of the file.
        weights: its tensors; only ``rope_freqs.weight`` is read.

    Raises:
        ConfigError: the architecture is not supported, or keys are missing, unknown, out of range or have a value
            that sprat does not implement. The message names every such key.
    """
    known, name = architectures(), metadata.get("general.architecture")
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"metadata: {unknown_name('general.architecture', str(name), known)}")
    prefix = f"{name}."
    keys = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    fields = Fields("metadata", usual_keys(keys), prefix)
    spec = known[name].spec_from_gguf(fields, weights)
    take_unused(fields)
    fields.finish(HARMLESS)
    fields.raise_problems("use a GGUF of a supported architecture, or convert the model again")
    spec.validate()
    return spec


def llamacpp_differences(spec: ModelSpec) -> list[str]:
    """Ways in which llama.cpp computes a file with this spec differently, so that its logits differ; for users.

    Its context has YaRN's betas from options, not from the keys, and one mscale.
    """
    scaling = (
        f"llama.cpp and Ollama do not compute this: {problem}; their logits differ"
        for problem in _why_not_scaling(spec)
    )
    return [*architectures()[spec.architecture].differs_in_llamacpp(spec), *scaling]


def _why_not_scaling(spec: ModelSpec) -> list[str]:
    match spec.rope.scaling:
        case YarnScaling() as yarn:
            return _why_not_yarn(spec, yarn)
        case LinearScaling(factor=factor) if factor != 1 and not spec.attention.is_linear_of_llamacpp:
            return [f"RoPE is scaled linearly by {factor:g}, for which it scales the scores of latent attention, too"]
        case FrequencyFactors() if not architectures()[spec.architecture].has_rope_factors:
            return [f"RoPE has the factors of Llama 3.1, which {spec.architecture} has no tensor for"]
        case _:
            return []


def _why_not_yarn(spec: ModelSpec, yarn: YarnScaling) -> list[str]:
    wrong = {
        f"YaRN's mscale is {yarn.mscale} and mscale_all_dim {yarn.mscale_all_dim}": (
            not spec.attention.is_yarn_of_llamacpp(yarn)
        ),
        "YaRN's beta_fast and beta_slow are not 32 and 1": (yarn.beta_fast, yarn.beta_slow) != (32.0, 1.0),
    }
    return [problem for problem, is_wrong in wrong.items() if is_wrong]


def _scaling_keys(spec: ModelSpec) -> dict[str, Any]:
    """The keys of a scaling that is not a tensor, as Llama 3.1's factors are."""
    match spec.rope.scaling:
        case LinearScaling(factor=factor):
            return {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
        case YarnScaling() as yarn:
            return {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": yarn.factor,
                "rope.scaling.original_context_length": yarn.original_max_position_embeddings,
                **spec.attention.yarn_keys(yarn),
            }
        case _:
            return {}
