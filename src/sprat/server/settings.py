"""``ServerSettings``: where the server listens, who may use it, and how much."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from sprat.errors import InputError
from sprat.runtime.loading.options import LoadKeywords

__all__ = ["ServerSettings", "is_loopback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Settings of one server.

    Attributes:
        host: address or name to listen on.
        port: TCP port; 0 for any free one.
        api_key: that every request must carry as ``Authorization: Bearer KEY``; required unless the host is loopback.
        origins: other web origins whose pages may send requests, such as ``https://panel.example``.
        parallel: answers that are generated at a time, for each model.
        queue: requests that may wait for each model; one more is answered with 429.
        max_tokens: of an answer, also where a request asks for more; ``None`` for as many as fit into the context.
        timeout: seconds that a request may take, from its arrival; its answer then ends as it is.
        max_body_bytes: of a request.
        keep_alive: seconds after which a model that is not used is unloaded; ``None`` for never, unless another one
            needs the memory.
        memory: limit for all models together, in bytes or as ``"3GB"``.
        load: how to load the models; see :class:`~sprat.runtime.loading.options.LoadOptions`.

    Raises:
        InputError: a value is out of range, or another host than loopback has no API key.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_key: str | None = None
    origins: tuple[str, ...] = ()
    parallel: int = 4
    queue: int = 16
    max_tokens: int | None = None
    timeout: float = 600.0
    max_body_bytes: int = 8 << 20
    keep_alive: float | None = None
    memory: int | str | None = None
    load: LoadKeywords = field(default_factory=LoadKeywords)

    def __post_init__(self) -> None:
        if self.api_key is None and not is_loopback(self.host):
            raise InputError(
                f"the host {self.host} can be reached from other machines and there is no API key: set $SPRAT_API_KEY "
                "(or api_key=), or listen on 127.0.0.1"
            )
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.strip()):
            raise InputError("the API key is empty or has characters outside ASCII, which no HTTP header can carry")
        limits = {
            "port": (self.port, 0 <= self.port < 1 << 16),
            "parallel": (self.parallel, self.parallel >= 1),
            "queue": (self.queue, self.queue >= 0),
            "max_tokens": (self.max_tokens, self.max_tokens is None or self.max_tokens >= 1),
            "timeout": (self.timeout, 0 < self.timeout <= 1e9),
            "max_body_bytes": (self.max_body_bytes, self.max_body_bytes >= 1),
            "keep_alive": (self.keep_alive, self.keep_alive is None or 0 <= self.keep_alive <= 1e9),
        }
        if wrong := [f"{name} is {value!r}" for name, (value, holds) in limits.items() if not holds]:
            raise InputError(f"server settings out of range: {', '.join(wrong)}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
