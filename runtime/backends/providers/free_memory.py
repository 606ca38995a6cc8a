"""Free memory of a provider's device: from the system where it reports it, otherwise from the profile.

onnxruntime has no function for it. NVIDIA's driver brings ``nvidia-smi``; AMD's writes it into files, in Linux's sysfs.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sprat.devices.parts import Accelerator
from sprat.devices.plan.gpu import free_card_bytes
from sprat.runtime.backends.providers.settings import ProviderSettings

__all__ = ["FreeMemory", "free_memory"]

_NVIDIA = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
_TIMEOUT_SECONDS = 10
_AMD_CARDS = "class/drm/card*/device"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """Free bytes of a device, and who says so."""

    n_bytes: int
    source: str


def free_memory(
    provider: ProviderSettings, accelerator: Accelerator | None = None, sysfs: Path = Path("/sys")
) -> FreeMemory | None:
    """The free memory of the provider's device; ``None`` where nothing says it.

    Of several cards it is that of the option ``device_id``, or the most: which one ``webgpu`` takes is the browser
    engine's choice.

    Args:
        provider: one with memory of its own.
        accelerator: of the device's profile.
        sysfs: where Linux's is.
    """
    for source, cards in (("nvidia-smi", list(_nvidia())), ("the driver", list(_amd(sysfs)))):
        if cards and (provider.name != "cuda" or source == "nvidia-smi"):
            return FreeMemory(_of(provider, cards), source)
    if accelerator is None:
        return None
    return FreeMemory(free_card_bytes(accelerator), f"the profile's {accelerator.name}")


def _of(provider: ProviderSettings, cards: list[int]) -> int:
    chosen = provider.options.get("device_id", "")
    return cards[int(chosen)] if chosen.isdecimal() and int(chosen) < len(cards) else max(cards)


def _nvidia() -> Iterator[int]:
    try:
        asked = subprocess.run(_NVIDIA, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):  # no such driver, or one that does not answer: the profile knows
        return
    for line in asked.stdout.splitlines():
        with contextlib.suppress(ValueError):  # "[N/A]" of a chip that shares its memory
            yield int(line) * _MIB


def _amd(sysfs: Path) -> Iterator[int]:
    for card in sorted(sysfs.glob(_AMD_CARDS)):
        with contextlib.suppress(OSError, ValueError):  # of another maker
            total, used = (int((card / f"mem_info_vram_{name}").read_text()) for name in ("total", "used"))
            yield max(total - used, 0)
