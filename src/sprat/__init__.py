"""sprat deploys DeepSeek students on edge devices: export, verify, plan and run them.

::

    import sprat

    sprat.export("demo", "out", device="rpi5-8gb")
    with sprat.load("out", memory="3GB") as engine:
        reply = engine.chat([{"role": "user", "content": "What is 17 + 25?"}])
        print(reply["choices"][0]["message"]["content"])

The names in ``__all__`` are the public API. Each is imported at its first use, so that ``import sprat`` is fast and
loads no NumPy.
"""

from __future__ import annotations

from importlib import import_module

from sprat.errors import (
    BackendDiedError,
    BackendError,
    BundleError,
    CheckpointError,
    ConfigError,
    DeviceError,
    DoesNotFitError,
    EmulationError,
    ExportError,
    FormatError,
    InputError,
    ModelFileChangedError,
    ModelFileError,
    PromptError,
    QueueFullError,
    ResultsError,
    SessionBusyError,
    SpratError,
    TemplateError,
    TokenizerError,
)

TYPE_CHECKING = False  # type checkers take it as true; `typing` takes longer to import than the rest
if TYPE_CHECKING:
    from sprat.app.bench import bench
    from sprat.app.evaluate import evaluate
    from sprat.app.export import estimate_export, export
    from sprat.app.inspect import inspect
    from sprat.app.load import load
    from sprat.app.plan import plan
    from sprat.app.quantize import quantize
    from sprat.app.report import report
    from sprat.app.verify import verify
    from sprat.runtime.async_engine import AsyncEngine, AsyncSession
    from sprat.runtime.engine import Engine
    from sprat.runtime.session import Session
    from sprat.server.serve import serve

    __version__: str

__all__ = [
    "AsyncEngine",
    "AsyncSession",
    "BackendDiedError",
    "BackendError",
    "BundleError",
    "CheckpointError",
    "ConfigError",
    "DeviceError",
    "DoesNotFitError",
    "EmulationError",
    "Engine",
    "ExportError",
    "FormatError",
    "InputError",
    "ModelFileChangedError",
    "ModelFileError",
    "PromptError",
    "QueueFullError",
    "ResultsError",
    "Session",
    "SessionBusyError",
    "SpratError",
    "TemplateError",
    "TokenizerError",
    "__version__",
    "bench",
    "estimate_export",
    "evaluate",
    "export",
    "inspect",
    "load",
    "plan",
    "quantize",
    "report",
    "serve",
    "verify",
]

# Name: the module that defines it. `export` is not here: it is also the package sprat.export, which is callable.
_MODULES = {
    "AsyncEngine": "sprat.runtime.async_engine",
    "AsyncSession": "sprat.runtime.async_engine",
    "Engine": "sprat.runtime.engine",
    "Session": "sprat.runtime.session",
    "bench": "sprat.app.bench",
    "estimate_export": "sprat.app.export",
    "evaluate": "sprat.app.evaluate",
    "inspect": "sprat.app.inspect",
    "load": "sprat.app.load",
    "plan": "sprat.app.plan",
    "quantize": "sprat.app.quantize",
    "report": "sprat.app.report",
    "serve": "sprat.server.serve",
    "verify": "sprat.app.verify",
}


if not TYPE_CHECKING:  # type checkers would take it as a promise of every name

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return getattr(import_module(_MODULES[name]), name)
        if name == "export":
            return import_module("sprat.export")
        if name == "__version__":
            from importlib.metadata import version  # costs more than the rest of `import sprat`

            return version("sprat")
        raise AttributeError(f"module 'sprat' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
