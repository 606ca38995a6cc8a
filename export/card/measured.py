"""A measurement of ``sprat verify`` written into the model card of a bundle."""

from __future__ import annotations

from pathlib import Path

from sprat.errors import BundleError, InputError
from sprat.export.card.model_card import measured_card, model_card
from sprat.export.verify.verify import Verification
from sprat.export.write.errors import export_errors
from sprat.files import atomic_write, read_text
from sprat.runtime.files.bundle import Bundle
from sprat.runtime.memory.footprint import DEFAULT_CONTEXT

__all__ = ["write_measured_card"]

_NAME = "README.md"


def write_measured_card(verification: Verification) -> Path:
    """Replace the section on quality in the bundle's model card; a card that was deleted is written again.

    Raises:
        InputError: the artifact is not a bundle, or its card is not text in UTF-8.
        ExportError: the card cannot be written.
    """
    try:
        bundle = Bundle.open(verification.artifact)
    except BundleError as error:
        raise InputError(f"--card writes into a bundle's {_NAME}: {error}") from error
    path = bundle.path / _NAME
    try:
        card = read_text(path)
    except FileNotFoundError:
        context = min(bundle.manifest.spec["max_context"], DEFAULT_CONTEXT)
        card = model_card(bundle.manifest, context=context, has_modelfile=(bundle.path / "Modelfile").exists())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a text in UTF-8 ({error}); delete it and repeat the command") from error
    with export_errors(path):
        atomic_write(path, measured_card(card, bundle.manifest.source.name, verification.quality).encode())
    return path
