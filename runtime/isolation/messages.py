"""The protocol between the two processes: small messages on a socket, tokens and logits in shared memory.

The process with the model may be in an attacker's hands. So messages are plain records, never pickles, and what it says
is checked.
"""

from __future__ import annotations

import os
from typing import TypeAlias

import msgspec

from sprat.devices.plan.context_settings import NO_WISHES, ContextWishes
from sprat.runtime.backends.gpu.use import GPUUse
from sprat.runtime.backends.providers.settings import ProviderSettings

__all__ = [
    "CloseStream",
    "Computed",
    "Failed",
    "Forward",
    "Load",
    "Loaded",
    "MoreRows",
    "OpenStream",
    "Opened",
    "Reply",
    "Request",
    "receive_reply",
    "receive_request",
    "send",
]

_MOST_BYTES = 1 << 17  # of a message: a system's limit on a packet is above


class Load(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Load a model: the fields of a LoadRequest, and what the process may do."""

    number: int
    backend: str
    path: str
    readable: tuple[str, ...]  # the model's files
    limit_bytes: int  # memory besides mapped files
    context: int
    n_threads: int
    batch: int
    memory_bytes: int | None
    cache: str | None
    deterministic: bool
    exact: bool
    cores: tuple[int, ...]
    streams: bool
    use_extra_bufts: bool | None
    wishes: ContextWishes = NO_WISHES
    gpu_use: GPUUse | None = None
    provider: ProviderSettings | None = None

    @property
    def opens_device(self) -> bool:
        """Whether the process must be able to open devices: then it is in no sandbox."""
        return self.gpu_use is not None or self.provider is not None


class OpenStream(msgspec.Struct, frozen=True, tag=True):
    """Make an empty stream."""

    number: int
    stream: int
    capacity: int


class CloseStream(msgspec.Struct, frozen=True, tag=True):
    """Free a stream; there is no reply."""

    number: int
    stream: int


class Forward(msgspec.Struct, frozen=True, tag=True):
    """Append the tokens in the region to a stream, from position ``n_past`` on."""

    number: int
    stream: int
    n_past: int
    n_tokens: int
    all_logits: bool
    row: int  # of the region, for the logits; SHARED for its shared rows
    deadline: float | None  # time.monotonic(), which all processes share


class MoreRows(msgspec.Struct, frozen=True, tag=True):
    """Put the next logits of the last pass into the region's shared rows."""

    number: int


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The reply to a load: the properties of the model."""

    number: int
    vocab_size: int
    max_context: int


class Opened(msgspec.Struct, frozen=True, tag=True):
    """The stream is there."""

    number: int


class Computed(msgspec.Struct, frozen=True, tag=True):
    """Tokens in the stream, and rows of logits that were written into the region; none after an interrupt."""

    number: int
    length: int
    n_rows: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The request failed with an error of ``sprat.errors``; ``length`` is as in Computed."""

    number: int
    kind: str
    message: str
    length: int


Request: TypeAlias = Load | OpenStream | CloseStream | Forward | MoreRows
Reply: TypeAlias = Loaded | Opened | Computed | Failed


def send(descriptor: int, message: Request | Reply) -> None:
    """Write a message to a socket of packets."""
    os.write(descriptor, msgspec.msgpack.encode(message))


_REQUESTS = msgspec.msgpack.Decoder(Request)
_REPLIES = msgspec.msgpack.Decoder(Reply)


def receive_request(descriptor: int) -> Request | None:
    """The next request; ``None`` when the other side is closed."""
    data = os.read(descriptor, _MOST_BYTES)
    return _REQUESTS.decode(data) if data else None


def receive_reply(descriptor: int) -> Reply | None:
    """The next reply; ``None`` when the other side is closed.

    Raises:
        msgspec.DecodeError: it is none.
    """
    data = os.read(descriptor, _MOST_BYTES)
    return _REPLIES.decode(data) if data else None
