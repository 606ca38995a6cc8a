"""``ModelPool``: the models of a server by name, loaded when they are asked for, within one limit of memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sprat.app.demo_bundle import demo_gguf
from sprat.app.load import load
from sprat.app.model_reference import DEMO, find_source
from sprat.errors import DoesNotFitError, InputError
from sprat.runtime.async_engine import AsyncEngine
from sprat.runtime.engine import Engine
from sprat.runtime.memory.amount import parse_memory
from sprat.server.errors import ApiError
from sprat.server.settings import ServerSettings

__all__ = ["ModelPool", "ServedModel", "named_models"]

_DEMO_QUANT = "int8"  # the packaged student as a bundle: a checkpoint would run in NumPy


@dataclass(slots=True, eq=False)
class ServedModel:
    """A model that the server offers.

    Attributes:
        name: in requests.
        path: of the bundle, model file or checkpoint.
        created: when the server began to offer it, in seconds since 1970.
        engine: while it is loaded.
        claimed_bytes: of the memory limit.
        n_users: requests that use it now.
        last_used: on the clock of the event loop.
        keep_alive: seconds until it is unloaded when it is not used; ``None`` for never.
    """

    name: str
    path: Path
    keep_alive: float | None
    created: int = field(default_factory=lambda: int(time.time()))
    engine: AsyncEngine | None = None
    claimed_bytes: int = 0
    n_users: int = 0
    last_used: float = 0.0


def named_models(models: Iterable[str]) -> dict[str, Path]:
    """Paths of ``MODEL`` or ``NAME=MODEL``, by name; by default the name of the file or folder.

    Raises:
        InputError: no model, a model that does not exist, or two of one name.
    """
    found: dict[str, Path] = {}
    for model in models:
        name, _, reference = model.rpartition("=")
        path = demo_gguf(_DEMO_QUANT) if reference == DEMO else find_source(reference)
        name = name or (DEMO if reference == DEMO else Path(reference).name.removesuffix(".gguf"))
        if name in found:
            raise InputError(f"two models are called {name!r}; give one another name: NAME={reference}")
        found[name] = path
    if not found:
        raise InputError("there is no model to serve, expected at least one")
    return found


class ModelPool:
    """The models of a server.

    Args:
        models: paths by name.
        settings: of the server.
    """

    def __init__(self, models: Mapping[str, Path], settings: ServerSettings) -> None:
        self.models = {name: ServedModel(name, path, settings.keep_alive) for name, path in models.items()}
        self._settings = settings
        self._limit_bytes = None if settings.memory is None else parse_memory(settings.memory)
        self._loading = asyncio.Lock()
        self._unloading: set[asyncio.Future[None]] = set()  # the loop itself keeps no task alive

    def find(self, name: str) -> ServedModel:
        """The model ``name``. A server of one model answers to every name, as llama-server does.

        Raises:
            ApiError: there is none of that name.
        """
        if len(self.models) == 1:
            return next(iter(self.models.values()))
        if name not in self.models:
            known = ", ".join(sorted(self.models))
            problem = f"the model {name!r:.200} does not exist" if name else "the request names no model"
            raise ApiError(404, f"{problem} (known: {known})", param="model", code="model_not_found")
        return self.models[name]

    async def load_first(self) -> None:
        """Load the model that was named first, so that what is wrong with it is known before a request comes."""
        async with self.using(next(iter(self.models.values()))):
            pass

    @asynccontextmanager
    async def using(self, model: ServedModel) -> AsyncIterator[AsyncEngine]:
        """The model's engine, loaded; it stays so inside the block.

        Raises:
            SpratError: it cannot be loaded.
        """
        model.n_users += 1
        try:
            yield model.engine or await self._loaded(model)
        finally:
            model.n_users -= 1
            model.last_used = asyncio.get_running_loop().time()
            self._unload_later(model)

    async def unload(self, model: ServedModel) -> None:
        """Free the memory of a model; a later request loads it again."""
        engine, model.engine, model.claimed_bytes = model.engine, None, 0
        if engine is not None:
            await engine.close()

    async def close(self) -> None:
        """End all answers and free all models."""
        await asyncio.gather(*(self.unload(model) for model in self.models.values()))

    async def _loaded(self, model: ServedModel) -> AsyncEngine:
        async with self._loading:  # one at a time: each takes what the others leave of the memory
            return model.engine or await self._load(model)

    async def _load(self, model: ServedModel) -> AsyncEngine:
        while True:
            free = None if self._limit_bytes is None else self._limit_bytes - self._claimed_bytes()
            try:
                engine = await asyncio.to_thread(self._open, model, free)
            except DoesNotFitError:
                if free is None or not await self._unload_longest_unused():
                    raise
            else:
                parallel = self._fitting(engine, free)
                model.claimed_bytes = engine.needed_bytes(parallel) or free or 0
                model.engine = AsyncEngine(engine, parallel=parallel, queue=self._settings.queue)
                return model.engine

    def _open(self, model: ServedModel, free: int | None) -> Engine:
        if free is not None and free <= 0:
            raise DoesNotFitError(f"{model.name}: other models hold all of the memory limit; try again later")
        options = {**self._settings.load, **({} if free is None else {"memory": free})}
        return load(model.path, **options)  # type: ignore[arg-type]  # the TypedDict has the types

    def _fitting(self, engine: Engine, free: int | None) -> int:
        """Answers at a time whose KV caches fit beside the weights."""
        wanted = self._settings.parallel
        return wanted if free is None else max(1, *(n for n in range(1, wanted + 1) if engine.needed_bytes(n) <= free))

    def _claimed_bytes(self) -> int:
        return sum(model.claimed_bytes for model in self.models.values())

    async def _unload_longest_unused(self) -> bool:
        """Unload one model that no request uses; whether there was one."""
        idle = [model for model in self.models.values() if model.engine is not None and not model.n_users]
        if idle:
            await self.unload(min(idle, key=lambda model: model.last_used))
        return bool(idle)

    def _unload_later(self, model: ServedModel) -> None:
        if model.keep_alive is not None and not model.n_users:
            asyncio.get_running_loop().call_later(model.keep_alive, self._unload_if_unused, model, model.last_used)

    def _unload_if_unused(self, model: ServedModel, since: float) -> None:
        if not model.n_users and model.last_used == since:
            self._unloading.add(task := asyncio.ensure_future(self.unload(model)))
            task.add_done_callback(self._unloading.discard)
