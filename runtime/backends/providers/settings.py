"""A provider and its options: for language models, for a device's GPU, and what the caller gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec

from sprat.devices.parts import Accelerator
from sprat.runtime.backends.providers.names import (
    CPU,
    check_option_names,
    check_provider_name,
    device_memory,
    full_name,
)

__all__ = ["ProviderSettings"]

_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "coreml": {"ModelFormat": "MLProgram"},  # the older format has fewer operators
    "cuda": {"arena_extend_strategy": "kSameAsRequested"},  # a cache grows by a token; twice the memory is not there
    "directml": {"device_filter": "gpu"},
    "openvino": {"device_type": "CPU"},
    "qnn": {"backend_type": "htp", "htp_performance_mode": "sustained_high_performance"},  # an answer takes minutes
    "webgpu": {"powerPreference": "high-performance"},
}


class ProviderSettings(msgspec.Struct, frozen=True):
    """An execution provider of onnxruntime.

    Attributes:
        name: its short name, ``webgpu``.
        options: in onnxruntime's words.
    """

    name: str
    options: Mapping[str, str] = msgspec.field(default_factory=dict)

    @classmethod
    def of(cls, name: str, given: Mapping[str, str] | None = None, accelerator: Accelerator | None = None) -> Self:
        """The provider with sprat's options, replaced by the profile's, replaced by the caller's.

        Args:
            name: of the provider.
            given: the caller's options.
            accelerator: the GPU of the device's profile.

        Raises:
            InputError: an unknown provider, or an unknown option of it.
        """
        check_provider_name(name)
        profile = {} if accelerator is None else _of_gpu(name, accelerator)
        for options in (given or {}, profile):
            check_option_names(name, options)
        return cls(name, {**_DEFAULTS[name], **profile, **(given or {})})

    @property
    def memory(self) -> str | None:
        """See :func:`~sprat.runtime.backends.providers.names.device_memory`."""
        return device_memory(self.name)

    @property
    def opens_device(self) -> bool:
        """Whether it computes with a device's driver; OpenVINO need not."""
        return self.options.get("device_type") != "CPU"

    def session_providers(self) -> list[Any]:
        """The argument ``providers`` of an ``InferenceSession``: nodes that the provider lacks are the CPU's."""
        return [(full_name(self.name), dict(self.options)), CPU]


def _of_gpu(name: str, accelerator: Accelerator) -> dict[str, str]:
    """Provider options derived from a profile's GPU, then those that the profile states."""
    derived = {
        "cuda": {"gpu_mem_limit": str(int(accelerator.memory_bytes.value))},
        "openvino": {"device_type": "GPU"},
    }
    return {**derived.get(name, {}), **accelerator.provider_options.get(name, {})}
