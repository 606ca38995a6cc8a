"""Writes GGUF files of presets with random weights, to measure speed without a download.

The writer is :mod:`sprat.export.gguf.random_weights`. ``vs_llamacpp.py`` reports the routing entropy with every result
from such a file.

    python benchmarks/llamacpp_peer/shapes.py deepseek-v2-lite --layers 6 --quant Q4_0 v2-lite-6.gguf
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sprat.export.gguf.random_weights import write_preset
from sprat.runtime.arch.presets import preset_names

__all__ = ["SHAPES", "write_preset"]

SHAPES = preset_names()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("path", type=Path)
    parser.add_argument("--quant", default="Q4_0", help="a block format for all matrices, or a recipe such as int4")
    parser.add_argument("--layers", type=int)
    arguments = parser.parse_args()
    write_preset(arguments.path, arguments.shape, arguments.quant, arguments.layers)
    print(f"{arguments.path}: {arguments.path.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    _main()
