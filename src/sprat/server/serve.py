"""``sprat.serve``: answer HTTP requests until the process is told to end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Unpack

from sprat.boundary import public_call
from sprat.errors import BackendError, SpratError
from sprat.runtime.loading.options import LoadKeywords, LoadOptions
from sprat.server import systemd
from sprat.server.settings import ServerSettings

if TYPE_CHECKING:
    import uvicorn

    from sprat.server.model_pool import ModelPool

__all__ = ["serve"]

_GRACE_S = 10  # that answers get to end when the process is told to
_LOOK_S = 0.05  # between two looks at the server's state, for which uvicorn has no event


@public_call
def serve(
    models: str | Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    api_key: str | None = None,
    origins: Sequence[str] = (),
    parallel: int = 4,
    queue: int = 16,
    max_tokens: int | None = None,
    timeout: float = 600.0,
    keep_alive: float | None = None,
    on_ready: Callable[[str], object] = lambda _address: None,
    **options: Unpack[LoadKeywords],
) -> None:
    """Serve models over HTTP, with OpenAI's API, until SIGTERM or SIGINT.

    Args:
        models: references as of :func:`sprat.load`, or ``NAME=MODEL``. The first is loaded at once, others when a
            request asks for them.
        host: address to listen on. By default only programs of this machine reach the server.
        port: TCP port; 0 for any free one.
        api_key: that requests must carry as ``Authorization: Bearer KEY``; required for other hosts than loopback.
        origins: other web origins whose pages may send requests.
        parallel: answers that are generated at a time, for each model.
        queue: requests that may wait for each model; one more is answered with 429.
        max_tokens: of an answer, also where a request asks for more.
        timeout: seconds that an answer may take.
        keep_alive: seconds after which a model that is not used is unloaded; by default it stays, unless another one
            needs the memory.
        on_ready: called with the server's address when it answers.
        options: of :func:`sprat.load`, for every model; ``memory`` is the limit for all of them together.

    Raises:
        InputError: a model or an option cannot be used, or another host than loopback has no API key.
        BackendError: starlette and uvicorn are not installed.
        SpratError: the first model cannot be loaded, or the address is in use.
    """
    LoadOptions.of("serve()", options)
    memory = options.pop("memory", None)
    settings = ServerSettings(
        host=host,
        port=port,
        api_key=api_key,
        origins=tuple(origins),
        parallel=parallel,
        queue=queue,
        max_tokens=max_tokens,
        timeout=timeout,
        keep_alive=keep_alive,
        memory=memory,
        load=options,
    )
    _run([models] if isinstance(models, str) else list(models), settings, on_ready)


def _run(models: list[str], settings: ServerSettings, on_ready: Callable[[str], object]) -> None:
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise BackendError(f"the server needs {error.name}: pip install 'sprat[serve]'") from error
    from sprat.server.application import application
    from sprat.server.model_pool import named_models

    app = application(named_models(models), settings)
    with _listening(settings) as listener:
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            ws="none",
            limit_concurrency=_connections(settings, len(models)),
            timeout_graceful_shutdown=_GRACE_S,
        )
        asyncio.run(_serve(uvicorn.Server(config), app.state.pool, listener, on_ready))


def _connections(settings: ServerSettings, n_models: int) -> int:
    """Open connections: every request that is answered or may wait, and as many that are idle or get an error."""
    return 2 * n_models * (settings.parallel + settings.queue) + 16


async def _serve(
    server: uvicorn.Server, pool: ModelPool, listener: socket.socket, on_ready: Callable[[str], object]
) -> None:
    await pool.load_first()
    telling = asyncio.ensure_future(_tell(server, lambda: on_ready(_address(listener))))
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when all is shut down
    try:
        await server.serve(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
        await pool.close()
        await telling


async def _tell(server: uvicorn.Server, call: Callable[[], object]) -> None:
    """Say when the server answers, and when it begins to stop."""
    while not (server.started or server.should_exit):
        await asyncio.sleep(_LOOK_S)
    with systemd.notifying():
        call()
        while not server.should_exit:
            await asyncio.sleep(_LOOK_S)


def _listening(settings: ServerSettings) -> socket.socket:
    """A socket that listens.

    Raises:
        SpratError: the address is in use or is not this machine's.
    """
    host = settings.host.strip("[]")
    try:
        family = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, settings.port), family=family, backlog=128)
    except (OSError, ValueError) as error:  # ValueError: a name that no resolver takes
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number and number > 0 else str(error)
        raise SpratError(
            f"cannot listen on {settings.host}, port {settings.port}: {reason}; choose another port, or 0 for any free "
            "one"
        ) from error


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
