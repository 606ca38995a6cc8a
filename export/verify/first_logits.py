"""Open a finished bundle as its user will, and compute the logits of a short prompt, before an export says success."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sprat.devices.machine import available_bytes
from sprat.errors import BackendError, DoesNotFitError, ExportError, SpratError
from sprat.runtime.engine import Engine
from sprat.runtime.files.bundle import Bundle
from sprat.runtime.health import has_finite_logits

__all__ = ["check_first_logits"]

_CONTEXT = 8
_MAX_REFERENCE_BYTES = 256 << 20  # NumPy dequantizes every weight: minutes for a larger model


def check_first_logits(folder: Path) -> Iterator[str]:
    """Run each artifact of the bundle over four tokens; yields notes about artifacts that cannot be run here.

    Raises:
        ExportError: an artifact cannot be opened, or computes NaN or Inf.
    """
    bundle = Bundle.open(folder)
    sizes = {file.name: file.size_bytes for file in bundle.manifest.files}
    for artifact in bundle.manifest.artifacts:
        if artifact.format == "onnx" and sum(sizes.values()) > available_bytes() // 2:
            yield f"{artifact.file} was not run: onnxruntime would need more memory than is free"
            continue
        try:
            with Engine.load(folder / artifact.file, context=_CONTEXT, force=True) as engine:
                if engine.backend.name == "reference" and sizes[artifact.file] > _MAX_REFERENCE_BYTES:
                    yield f"{artifact.file} was opened and not run: this machine has no fast backend for it"
                    continue
                _check_finite(engine, artifact.file)
        except (BackendError, DoesNotFitError) as error:
            yield f"{artifact.file} was not run: {error}"
        except ExportError:
            raise
        except SpratError as error:
            raise ExportError(
                f"{folder.parent.name}: the written model cannot be opened again ({error}); nothing was published: "
                "correct the source, or choose another format"
            ) from error


def _check_finite(engine: Engine, name: str) -> None:
    if not has_finite_logits(engine):
        raise ExportError(
            f"{name}: the written model computes NaN or Inf on a short prompt, and nothing was published; if its "
            "source does not, choose a format of higher precision, such as --quant q8_0 or bf16"
        )
