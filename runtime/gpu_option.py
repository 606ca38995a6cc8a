"""The ``gpu=`` option: ``"off"``, ``"auto"``, ``"on"``, an amount of GPU memory, or a placement."""

from __future__ import annotations

from typing import Self

import msgspec

from sprat.devices.plan.placement import Placement
from sprat.errors import InputError
from sprat.runtime.memory.amount import parse_memory

__all__ = ["GPU_OFF", "GPUOption"]

_WORDS = ("off", "auto", "on")


class GPUOption(msgspec.Struct, frozen=True):
    """A choice of where the parts of a model go.

    Attributes:
        is_off: compute on the CPU only.
        falls_back: where no GPU can be used, compute on the CPU and say so; otherwise that is an error.
        card_bytes: memory of the GPU that the model may use; ``None`` for what is free.
        placement: this one exactly; ``None`` for the fastest that fits.
    """

    is_off: bool = True
    falls_back: bool = False
    card_bytes: int | None = None
    placement: Placement | None = None

    @classmethod
    def of(cls, value: object) -> Self:
        """The option that ``value`` stands for.

        Raises:
            InputError: it is none of them.
        """
        if isinstance(value, Placement):
            return cls(is_off=value.is_off, placement=value)
        if isinstance(value, str) and value in _WORDS:
            return cls(is_off=value == "off", falls_back=value == "auto")
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise InputError(f"gpu is {value!r}, expected {_expected()}")
        try:
            card_bytes = parse_memory(value)
        except InputError as error:
            raise InputError(f"gpu is {value!r}, expected {_expected()}") from error
        return cls(is_off=False, card_bytes=card_bytes)


GPU_OFF = GPUOption()


def _expected() -> str:
    return f"{', '.join(map(repr, _WORDS))}, an amount of its memory such as '4GB', or a Placement"
