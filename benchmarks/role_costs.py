"""Cost of Q4_0 for the tensors of each role, for the tables of ``export/quality/costs.py``.

Measured by probes on the packaged calibration text, and on nothing else: no text that a file is judged by has a part
in ``--quality fast``. Divergences of all tensors of a role are in units of Q4_0's relative error. The exponent is that
of a power law through Q4_0 and Q2_K (Q2_0), the median of a role's tensors.

    python benchmarks/role_costs.py demo --json
    python benchmarks/role_costs.py SmolLM2-135M-Instruct.Q4_1.gguf --dither --json
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from quality_cases.source import dithered

import sprat.demo
from sprat.export.calibration import calibration_sequences
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.export.quality.costs import relative_error
from sprat.export.quality.measuring.measurements import Measurements
from sprat.export.quality.plan import measure_source
from sprat.export.source.checkpoint import Checkpoint
from sprat.quant.formats import get_format
from sprat.runtime.arch.tensors import tensor_role


def role_costs(found: Measurements) -> dict[str, dict[str, float]]:
    """Role -> ``cost``, and ``exponent`` where two formats were probed."""
    base = relative_error(get_format("Q4_0"))
    costs: dict[str, float] = defaultdict(float)
    exponents: dict[str, list[float]] = defaultdict(list)
    for tensor, klds in found.kld.items():
        role = tensor_role(tensor)
        costs[role] += klds.get("Q4_0", 0.0) / base
        coarse = next((name for name in klds if name != "Q4_0"), None)
        if coarse and min(klds.values()) > 0:
            errors = found.errors[tensor]
            exponents[role].append(math.log(klds[coarse] / klds["Q4_0"]) / math.log(errors[coarse] / errors["Q4_0"]))
    return {
        role: {"cost": cost, **({"exponent": statistics.median(exponents[role])} if role in exponents else {})}
        for role, cost in sorted(costs.items())
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="demo, or a GGUF")
    parser.add_argument("--dither", action="store_true", help="spread the weights of a quantized GGUF")
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = sprat.demo.path() if options.source == "demo" else Path(options.source)
        if options.dither:
            path = dithered(path, Path(folder) / "dithered.gguf", seed=17)
        checkpoint = Checkpoint.open(path)
        sequences = calibration_sequences(checkpoint.metadata or tokenizer_metadata(path))
        found = role_costs(measure_source(checkpoint, sequences, "balanced"))
    if not options.json:
        for role, values in found.items():
            print(f"{role:16}" + "".join(f"{name} {value:8.4f}  " for name, value in values.items()))
        return
    print(json.dumps(found))


if __name__ == "__main__":
    main()
