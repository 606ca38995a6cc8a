"""llama-quantize with ``--tensor-type`` recipes made by hand: for ``benchmarks/quality.py``.

They are what somebody writes who knows the architecture: the latent projections and the head get more bits, since every
token uses them; gate and up of the experts pay for it, down less, as in llama.cpp's own mixes. Experts' rows of the
student do not divide into K-quants in ``down``, so it has IQ4_NL.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from sprat.arrays import F32Array
from sprat.export.quality.llama_quantize import llama_quantize
from sprat.export.quality.measuring.layer_pass import LayerPass
from sprat.export.quality.measuring.score import score
from sprat.runtime.files.gguf import GGUFFile

__all__ = ["best_hand_recipe"]

_ATTENTION = {"attn_kv_a_mqa": "Q8_0", "attn_k_b": "Q8_0", "attn_v_b": "Q8_0", "attn_output": "Q8_0", "attn_q": "Q6_K"}
_DENSE = {"ffn_gate\\.": "Q5_K", "ffn_up\\.": "Q5_K", "ffn_down\\.": "Q6_K", "shexp": "Q5_K", "ffn_down_shexp": "Q8_0"}
_RECIPES = {
    "coarse gate and up": {
        "token_embd": "Q6_K",
        "output": "Q6_K",
        **_ATTENTION,
        **_DENSE,
        "ffn_gate_exps": "Q3_K",
        "ffn_up_exps": "Q3_K",
        "ffn_down_exps": "IQ4_NL",
    },
    "even experts": {
        "token_embd": "Q5_K",
        "output": "Q6_K",
        **dict.fromkeys(_ATTENTION, "Q8_0"),
        "attn_q": "Q5_K",
        "ffn_gate\\.": "Q4_K",
        "ffn_up\\.": "Q4_K",
        "ffn_gate_exps": "IQ4_XS",
        "ffn_up_exps": "IQ4_XS",
        "ffn_down_exps": "IQ4_NL",
    },
    "fine embeddings": {
        "token_embd": "Q8_0",
        "output": "Q8_0",
        **_ATTENTION,
        **_DENSE,
        "ffn_gate_exps": "Q3_K",
        "ffn_up_exps": "Q3_K",
        "ffn_down_exps": "IQ4_NL",
    },
    "fine down": {
        "token_embd": "Q6_K",
        "output": "Q6_K",
        **_ATTENTION,
        **_DENSE,
        "ffn_gate_exps": "Q3_K",
        "ffn_up_exps": "Q3_K",
        "ffn_down_exps": "Q5_0",
    },
}


def best_hand_recipe(unquantized: Path, out: Path, imatrix: Mapping[str, F32Array], layers: LayerPass) -> None:
    """Write the file with the least ``KLD * 4 ** bits``: what a bit more or less per weight is worth, roughly.

    The held-out text itself judges the recipes, in their favour.

    Args:
        unquantized: a GGUF of the source.
        out: the file to write.
        imatrix: tensor -> mean square of its inputs.
        layers: the source and the held-out text.
    """
    files = {name: out.with_name(f"{name.replace(' ', '-')}.gguf") for name in _RECIPES}
    for name, types in _RECIPES.items():
        llama_quantize(unquantized, files[name], "iq4_nl", imatrix, types)
    scores = score(layers, {name: GGUFFile.open(path) for name, path in files.items()})
    n_weights = unquantized.stat().st_size / 2
    worth = {name: scores[name].mean * 4 ** (8 * path.stat().st_size / n_weights) for name, path in files.items()}
    for name, path in files.items():
        print(f"{name}: {path.stat().st_size:,} bytes, KLD {scores[name].mean:.3g}", file=sys.stderr)
    files[min(worth, key=lambda name: worth[name])].replace(out)
