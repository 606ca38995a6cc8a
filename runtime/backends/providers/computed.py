"""The output of the child process of :mod:`sprat.runtime.backends.providers.placement`."""

from __future__ import annotations

import msgspec

__all__ = ["Computed"]


class Computed(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a trial run with a provider.

    Attributes:
        version: of onnxruntime.
        available: onnxruntime's names of the providers in this build.
        prompt_error: largest difference from the CPU's logits over the tokens of a prompt in two runs, as a share of
            the largest logit; ``None`` where it was not computed.
        decode_error: the same for the first of these tokens in a run each, as in decode.
        problem: why nothing was computed.
    """

    version: str
    available: tuple[str, ...]
    prompt_error: float | None = None
    decode_error: float | None = None
    problem: str = ""
