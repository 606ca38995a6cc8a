"""``sprat verify``: an artifact against the source it was exported from."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sprat.app.model_reference import find_source
from sprat.boundary import public_call
from sprat.devices.plan.context_settings import CacheType
from sprat.devices.plan.placement import Placement
from sprat.export.card.measured import write_measured_card
from sprat.export.verify.verify import Verification
from sprat.export.verify.verify import verify as verify_path
from sprat.progress import ReportProgress, no_progress

__all__ = ["verify"]


@public_call
def verify(
    artifact: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    text: str | None = None,
    backends: Sequence[str] | None = None,
    max_kld: float | None = None,
    max_tokens: int | None = None,
    lora: Sequence[str | os.PathLike[str]] = (),
    card: bool = False,
    gpu: str | int | Placement = "off",
    provider: str | None = None,
    cache: CacheType | None = None,
    flash_attention: bool | None = None,
    progress: ReportProgress = no_progress,
) -> Verification:
    """Compare the logits of an artifact with those of its source, as ``llama-perplexity --kl-divergence`` does.

    Args:
        artifact: a bundle, a GGUF file or an ONNX model.
        source: what it was exported from: a checkpoint folder, a GGUF file, a repository in the local Hugging Face
            cache (``"org/name"``), or ``"demo"``, the packaged student.
        text: what both models read; by default an evaluation text that comes with sprat.
        backends: the backends that run the artifact; by default ``reference``, the one that :func:`load` chooses and
            ``llamacpp`` where it is installed for a GGUF, ``onnx`` for an ONNX model.
        max_kld: the largest mean KL divergence, in nats per token, that passes.
        max_tokens: read only the first tokens of the text.
        lora: the LoRA adapters that the export merged, ``"DIR"`` or ``"DIR:scale"``, as in the export.
        card: write the measurement into the README.md of the bundle ``artifact``.
        gpu: as in :func:`load`: the artifact runs on a GPU, with the same limits.
        provider: as in :func:`load`: onnxruntime runs the artifact with it, with the same limits.
        cache: as in :func:`load`.
        flash_attention: as in :func:`load`.
        progress: called after each chunk, in tokens.

    Raises:
        InputError: a model cannot be read, the vocabularies differ, the text is too short, or the bundle was
            made with other adapters.
        BundleError: a file of the bundle differs from the hashes in its manifest.
        BackendError: a backend cannot run the artifact.
    """
    verification = verify_path(
        find_source(artifact),
        find_source(source),
        text=text,
        backends=backends,
        max_kld=max_kld,
        max_tokens=max_tokens,
        lora=lora,
        gpu=gpu,
        provider=provider,
        cache=cache,
        flash_attention=flash_attention,
        progress=progress,
    )
    if card:
        write_measured_card(verification)
    return verification
