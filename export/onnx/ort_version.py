"""Versions of onnxruntime, and the operators that older ones lack.

Measured with the graphs of the tests in every minor version (docs/onnx.md).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sprat.errors import InputError

__all__ = ["FAST_QMOE", "FLOAT_INT8", "LOWEST", "OrtVersion"]


class OrtVersion(NamedTuple):
    """A version of onnxruntime; a patch release has the operators of its minor version."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> OrtVersion:
        """``"1.22"``, or a whole version such as ``"1.24.4"``.

        Raises:
            InputError: not a version, or one that no graph of sprat loads in.
        """
        found = re.fullmatch(r"(\d{1,3})\.(\d{1,3})(?:\.\d{1,9})?", text.strip(), re.ASCII)
        if not found:
            raise InputError(f"onnxruntime {text[:40]!r}: not a version; expected for example {LOWEST}")
        version = cls(int(found[1]), int(found[2]))
        if version < LOWEST:
            raise InputError(f"onnxruntime {version}: sprat's graphs load in {LOWEST} and later; choose {LOWEST}")
        return version

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


LOWEST = OrtVersion(1, 22)
FLOAT_INT8 = OrtVersion(1, 23)  # MatMulNBits of 8 bits with float32 activations
FAST_QMOE = OrtVersion(1, 31)  # QMoE over packed weights, with output weights and bits of its own for each matrix
