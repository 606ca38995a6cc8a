"""Engines of tiny models with random weights, one of each kind of architecture, exported once per process."""

import functools
import tempfile
from pathlib import Path

from tiny_checkpoint import CONFIGS, write_checkpoint

from sprat.export.pipeline import export
from sprat.runtime.engine import Engine
from sprat.runtime.kernels.native import instruction_sets

BACKENDS = ["reference", *(["native"] if instruction_sets() else [])]
KINDS = list(CONFIGS)

_FOLDER = tempfile.TemporaryDirectory(prefix="sprat-tiny-engines-")


@functools.cache
def model_file(kind):
    """The GGUF of a tiny model with random weights."""
    folder = Path(_FOLDER.name)
    return export(write_checkpoint(folder / kind, kind), folder / f"{kind}-out", quant="int8").bundle.artifact()


def tiny_engine(kind, backend="reference", **options):
    """By default without int8 activations, whose rounding turns other chunks of a prompt into other tokens."""
    exact = backend == "native" and "deterministic" not in options and "cache" not in options
    return Engine.load(model_file(kind), backend=backend, **{"exact": exact, **options})
