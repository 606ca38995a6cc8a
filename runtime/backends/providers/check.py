"""Whether a provider computes a graph correctly on this machine, before it is used: a driver can be wrong silently."""

from __future__ import annotations

import msgspec

from sprat.errors import BackendError
from sprat.runtime.backends.probe_cache import probe_file, recall, remember
from sprat.runtime.backends.providers.library import missing_because, onnxruntime
from sprat.runtime.backends.providers.placement import ProviderUse, provider_use
from sprat.runtime.backends.providers.settings import ProviderSettings
from sprat.runtime.files.onnx.file import ONNXFile

__all__ = ["check_provider"]

_MOST_ERROR = 0.05  # of the largest logit: float16 and WGSL's sines stay far below, a wrong operator is above


class _Right(msgspec.Struct, frozen=True, kw_only=True):
    """The errors of a provider that was right."""

    prompt_error: float
    decode_error: float


def check_provider(file: ONNXFile, provider: ProviderSettings) -> None:
    """Compare a provider's logits with the CPU's, in a child process; a success is remembered.

    Raises:
        BackendError: the provider is missing, fails on the graph, or its logits are others.
    """
    if why := missing_because():
        raise BackendError(why)
    version = onnxruntime().__version__
    cached = probe_file(file.files(), version, provider.name, dict(provider.options))
    if recall(cached, _Right) is not None:
        return
    use = provider_use(file.path, provider)
    if problem := _problem(use):
        raise BackendError(f"{file.path}: {provider.name} {problem}")
    assert use.prompt_error is not None
    assert use.decode_error is not None, "without a problem both were computed"
    remember(cached, _Right(prompt_error=use.prompt_error, decode_error=use.decode_error))


def _problem(use: ProviderUse) -> str:
    """The problem and its remedy; empty if there is none."""
    inspect = "`sprat inspect --provider` has the details"
    if use.problem or use.prompt_error is None or use.decode_error is None:
        return f"fails on this graph ({use.problem or 'no logits'}); leave the provider out; {inspect}"
    for what, error in (("a prompt", use.prompt_error), ("single tokens", use.decode_error)):
        if not error <= _MOST_ERROR:  # NaN, too
            return (
                f"computes {what} wrongly with this driver: the logits differ from the CPU's by {error:.2g} of the "
                f"largest, expected at most {_MOST_ERROR:g}; export the model with --portable, update the driver, or "
                f"leave the provider out; {inspect}"
            )
    return ""
