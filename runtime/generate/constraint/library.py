"""llguidance, imported where it is needed; it is an extra, since it has no wheels for musl and 32-bit ARM."""

from __future__ import annotations

from typing import Any

from sprat.errors import BackendError

__all__ = ["matcher_class", "tokenizer_class"]


def matcher_class() -> Any:
    """``llguidance.LLMatcher``.

    Raises:
        BackendError: llguidance is not installed.
    """
    return _library().LLMatcher


def tokenizer_class() -> Any:
    """``llguidance.LLTokenizer``; errors as for :func:`matcher_class`."""
    return _library().LLTokenizer


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise BackendError(
            f"llguidance is not installed ({error}), expected for response_format and tools; "
            "install it:  pip install 'sprat[constrain]'"
        ) from error
    return llguidance
