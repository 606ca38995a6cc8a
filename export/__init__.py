"""Export: read a checkpoint, write GGUF and ONNX artifacts in a bundle, inspect and verify them.

The package itself is callable: ``sprat.export("demo", "out")`` calls :func:`sprat.app.export.export`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect import Signature

    from sprat.export.pipeline import ExportResult

__all__: list[str] = []


class _CallablePackage(ModuleType):
    """A package that can be called like the public function of the same name.

    ``sprat.export`` names both this package and a function of the public API. Importing any module of the package sets
    the attribute ``export`` of ``sprat`` to the package, whatever it was before, so the package has to be the function.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> ExportResult:
        from sprat.app.export import export

        return export(*args, **kwargs)

    @property
    def __signature__(self) -> Signature:
        import inspect

        from sprat.app.export import export

        return inspect.signature(export)


sys.modules[__name__].__class__ = _CallablePackage
