"""ggml's functions for devices, which llama-cpp-python's Python part does not declare."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sprat.devices.plan.context_settings import CacheType
from sprat.errors import BackendError

__all__ = ["CACHE_TYPES", "device_named", "device_values", "ggml", "host_buffer_type"]

CACHE_TYPES: Mapping[CacheType, int] = {"f32": 0, "f16": 1, "int8": 8, "int4": 2}
"""Numbers of ``enum ggml_type``: int8 is Q8_0, int4 Q4_0."""

_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t


class InitParams(ctypes.Structure):
    """``struct ggml_init_params``."""

    _fields_ = (("mem_size", _SIZE), ("mem_buffer", _POINTER), ("no_alloc", ctypes.c_bool))


_SIGNATURES: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "ggml_backend_load_all_from_path": (None, (ctypes.c_char_p,)),
    "ggml_backend_dev_count": (_SIZE, ()),
    "ggml_backend_dev_get": (_POINTER, (_SIZE,)),
    "ggml_backend_dev_by_name": (_POINTER, (ctypes.c_char_p,)),
    "ggml_backend_dev_by_type": (_POINTER, (ctypes.c_int,)),
    "ggml_backend_dev_name": (ctypes.c_char_p, (_POINTER,)),
    "ggml_backend_dev_description": (ctypes.c_char_p, (_POINTER,)),
    "ggml_backend_dev_type": (ctypes.c_int, (_POINTER,)),
    "ggml_backend_dev_memory": (None, (_POINTER, ctypes.POINTER(_SIZE), ctypes.POINTER(_SIZE))),
    "ggml_backend_dev_buffer_type": (_POINTER, (_POINTER,)),
    "ggml_backend_dev_supports_op": (ctypes.c_bool, (_POINTER, _POINTER)),
    "ggml_new_tensor_4d": (_POINTER, (_POINTER, ctypes.c_int, *[ctypes.c_int64] * 4)),
    "ggml_flash_attn_ext": (_POINTER, (*[_POINTER] * 5, *[ctypes.c_float] * 3)),
    "ggml_init": (_POINTER, (InitParams,)),
    "ggml_free": (None, (_POINTER,)),
}
_CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU


@functools.cache
def ggml() -> Any:
    """The library that has ggml's functions, its backends loaded where each is a file of its own.

    Raises:
        BackendError: the library does not export them.
    """
    from llama_cpp import llama_cpp

    library = llama_cpp._lib  # noqa: SLF001 - finds the symbols of the libraries that it is linked with
    path = Path(library._name)  # noqa: SLF001 - ctypes has no public name for it
    try:
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, list(arguments)
    except AttributeError as error:
        raise BackendError(
            f"{path}: this build of llama.cpp has no functions for devices ({error}); install another "
            "llama-cpp-python, or use gpu='off'"
        ) from error
    if not library.ggml_backend_dev_count():
        library.ggml_backend_load_all_from_path(str(path.parent).encode())
    return library


def device_values(device: int) -> tuple[str, str, int, int, int]:
    """Name, description, type, free and total bytes of a device."""
    library, free, total = ggml(), _SIZE(), _SIZE()
    library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    texts = (library.ggml_backend_dev_name(device), library.ggml_backend_dev_description(device))
    name, description = (text.decode("utf-8", "replace") for text in texts)
    return name, description, library.ggml_backend_dev_type(device), free.value, total.value


def device_named(name: str) -> int:
    """The device with this name.

    Raises:
        BackendError: there is none any more.
    """
    device: int | None = ggml().ggml_backend_dev_by_name(name.encode())
    if device is None:
        raise BackendError(f"the GPU {name} is gone, it was there a moment ago; check its driver, or use gpu='off'")
    return device


def host_buffer_type() -> int:
    """The type of buffers in the CPU's memory."""
    library = ggml()
    found: int = library.ggml_backend_dev_buffer_type(library.ggml_backend_dev_by_type(_CPU))
    return found
