"""Make the golden logits: run transformers' own implementations on tiny random models.

Every folder beside this file holds the ``config.json`` of a tiny model, in the form in which such checkpoints are
published (or, for the ``-odd`` ones, as transformers 5 saves it). This script adds:

- ``model.safetensors``: random weights under the names and in the types of the published checkpoints,
- ``expected.safetensors``: some tokens and the float32 logits after each of them,

and, in ``versions.json`` beside the folders, the versions that made them. It needs ``pip install --group golden``; the
tests only read the files. Run it as ``python tests/golden/make_golden.py FOLDER...``, or without a name for all. The
same version of transformers gives the same weights; another may order the tensors otherwise.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zlib
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
N_TOKENS = 80  # past the original context of every config with rope scaling
FP8_BLOCK = 128
FP8_MAX = 448.0


def main() -> None:
    """Remake the folders that the command names, or all."""
    names = sys.argv[1:] or [config.parent.name for config in HERE.glob("*/config.json")]
    versions = json.loads((HERE / "versions.json").read_text())
    for name in sorted(names):
        make(HERE / name)
        versions[name] = {"torch": torch.__version__, "transformers": transformers.__version__}
    (HERE / "versions.json").write_text(json.dumps(dict(sorted(versions.items())), indent=2) + "\n")


def make(folder: Path) -> None:
    """Weights and logits of one config."""
    config = json.loads((folder / "config.json").read_text())
    is_fp8 = config.pop("quantization_config", None) is not None
    n_mtp_layers = config.pop("num_nextn_predict_layers", 0)
    torch.manual_seed(zlib.crc32(folder.name.encode()))
    with tempfile.TemporaryDirectory() as scratch:
        names = published_names(config, Path(scratch))
        weights = {name: random_weight(name, shape) for name, shape in names.items()}
        dtype = getattr(torch, config.get("torch_dtype") or config.get("dtype"))
        stored = {name: weight if keeps_f32(name) else weight.to(dtype) for name, weight in weights.items()}
        if is_fp8:
            stored = to_fp8(stored)
        tokens = torch.randint(config["vocab_size"], (N_TOKENS,))
        logits = run(config, {name: value.float() for name, value in from_fp8(stored).items()}, tokens, Path(scratch))
    if n_mtp_layers:
        stored |= mtp_layer(config, dtype)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({"tokens": tokens.int(), "logits": logits}, folder / "expected.safetensors")


def published_names(config: dict, scratch: Path) -> dict[str, torch.Size]:
    """Names and shapes of the checkpoint that transformers would save."""
    (scratch / "config.json").write_text(json.dumps(config))
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(scratch))
    model.save_pretrained(scratch / "saved")
    return {name: tensor.shape for name, tensor in load_file(scratch / "saved" / "model.safetensors").items()}


def random_weight(name: str, shape: torch.Size) -> torch.Tensor:
    """Scaled so that every part matters: sharp attention, uneven routing, gains other than 1, biases other than 0."""
    noise = torch.randn(shape)
    if name.endswith("norm.weight"):
        return 1 + 0.3 * noise
    if name.endswith("e_score_correction_bias"):
        return 0.2 * noise
    if name.endswith("bias"):
        return 0.5 * noise
    if name.endswith("embed_tokens.weight"):
        return noise
    gain = 2.5 if name.endswith(("gate.weight", "q_proj.weight", "q_b_proj.weight")) else 1.0
    return gain * noise * shape[-1] ** -0.5


def keeps_f32(name: str) -> bool:
    """The one tensor that published checkpoints store in float32."""
    return name.endswith("e_score_correction_bias")


def to_fp8(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Linear layers as V3 stores them: E4M3, and a float32 scale for every block of 128 x 128."""
    stored = {}
    for name, weight in weights.items():
        if weight.dim() < 2 or "embed" in name or "lm_head" in name or name.endswith("mlp.gate.weight"):
            stored[name] = weight
            continue
        scales = block_maxima(weight.float()) / FP8_MAX
        stored[name] = (weight.float() / spread(scales, weight.shape)).to(torch.float8_e4m3fn)
        stored[f"{name}_scale_inv"] = scales
    return stored


def from_fp8(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights that such a checkpoint stands for."""
    weights = {}
    for name, weight in stored.items():
        if name.endswith("_scale_inv"):
            continue
        scales = stored.get(f"{name}_scale_inv")
        weights[name] = weight if scales is None else weight.float() * spread(scales, weight.shape)
    return weights


def block_maxima(weight: torch.Tensor) -> torch.Tensor:
    """The largest magnitude of each block, the ones at the edge smaller."""
    rows = weight.abs().split(FP8_BLOCK)
    return torch.stack([torch.stack([block.max() for block in row.split(FP8_BLOCK, dim=1)]) for row in rows])


def spread(scales: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """One scale per weight."""
    per_weight = scales.repeat_interleave(FP8_BLOCK, 0).repeat_interleave(FP8_BLOCK, 1)
    return per_weight[: shape[0], : shape[1]]


def run(config: dict, weights: dict[str, torch.Tensor], tokens: torch.Tensor, scratch: Path) -> torch.Tensor:
    """Logits ``(n, vocab)`` of the published implementation in float32, in one pass."""
    folder = scratch / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    with torch.inference_mode():
        logits = model(tokens[None]).logits[0]
        changed = tokens.clone()
        changed[0] = (tokens[0] + 1) % config["vocab_size"]
        reached = (model(changed[None]).logits[0] - logits)[-1].abs().max() / logits.abs().max()
    assert reached > 1e-3, f"the last logits hardly see the first token: {reached}"
    return logits.contiguous()


def mtp_layer(config: dict, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Some tensors of the layer that V3 appends to predict a second token: readers must skip them."""
    hidden, layer = config["hidden_size"], f"model.layers.{config['num_hidden_layers']}"
    shapes = {"eh_proj": (hidden, 2 * hidden), "enorm": (hidden,), "hnorm": (hidden,), "input_layernorm": (hidden,)}
    return {f"{layer}.{name}.weight": torch.randn(shape).to(dtype) for name, shape in shapes.items()}


if __name__ == "__main__":
    main()
