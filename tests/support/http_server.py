"""The HTTP server in a thread of the test, on a free port."""

import asyncio
import contextlib
import socket
import threading
import time

from sprat.server.application import application
from sprat.server.settings import ServerSettings


class Running:
    """A server that answers: its address, and its application's state."""

    def __init__(self, address, app, loop):
        self.address, self.state, self._loop = address, app.state, loop

    def engine(self, name=None):
        models = self.state.pool.models
        return (models[name] if name else next(iter(models.values()))).engine

    def wait_until(self, holds, seconds=60):
        """Wait for a condition; how long it took, in seconds."""
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < seconds, "it did not become true"
            time.sleep(0.002)
        return time.monotonic() - began


@contextlib.contextmanager
def running_server(models, **settings):
    """Serve ``models`` (name to path) in a thread."""
    import uvicorn

    app = application(models, ServerSettings(port=0, **settings))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=1))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(sockets=[listener]),))
    thread.start()
    try:
        yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", app, loop)
    finally:
        server.should_exit = True
        thread.join()
        loop.close()
        listener.close()
