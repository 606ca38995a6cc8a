"""E4M3 codes and their block scales, against the definition of the format, torch and transformers."""

import json

import numpy as np
import pytest
from deepseek_v3 import fp8_checkpoint
from safetensors_files import bf16, save
from tiny_checkpoint import CONFIGS, weights, write_checkpoint

from sprat.errors import CheckpointError, FormatError
from sprat.export.inspection import inspect
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.fp8 import F8_E4M3, F8_E8M0, ScaledBlocks, scale_shape
from sprat.export.source.rows import read_rows
from sprat.export.source.tensor import ComputedRow
from sprat.quant.formats import format_names, get_format


def by_definition(code: int) -> float:
    """Sign bit, four exponent bits with bias 7, three mantissa bits; one NaN per sign, no infinity."""
    exponent, mantissa = code >> 3 & 0b1111, code & 0b111
    if exponent == 0b1111 and mantissa == 0b111:
        return float("nan")
    magnitude = mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -magnitude if code & 0x80 else magnitude


class Matrix:
    """A row source in memory."""

    def __init__(self, packed, format):
        self.packed, self.format = packed, format
        self.n_rows, self.n_columns = packed.shape[0], packed.shape[1] // format.block_bytes

    def read_into(self, start, out):
        out[...] = self.packed[start : start + len(out)]


def test_all_codes():
    codes = np.arange(256, dtype=np.uint8)
    expected = np.array([by_definition(code) for code in range(256)], np.float32)
    np.testing.assert_array_equal(F8_E4M3.dequantize(codes), expected)


@pytest.mark.parametrize(
    ("code", "value"), [(0x00, 0), (0x01, 2**-9), (0x08, 2**-6), (0x38, 1), (0x7E, 448), (0xC0, -2)]
)
def test_special_values_of_the_format(code, value):
    assert F8_E4M3.dequantize(np.array([code], np.uint8)) == value


@pytest.mark.slow
def test_all_codes_match_torch():
    torch = pytest.importorskip("torch")
    codes = np.arange(256, dtype=np.uint8)
    theirs = torch.from_numpy(codes).view(torch.float8_e4m3fn).to(torch.float32).numpy()
    np.testing.assert_array_equal(F8_E4M3.dequantize(codes), theirs)


@pytest.mark.parametrize("shape", [(1, 1), (128, 128), (300, 200), (129, 640)])
def test_each_block_has_its_scale(shape):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 0x7F, shape, np.uint8)
    scales = rng.uniform(1e-4, 2, scale_shape(shape)).astype(np.float32)
    expected = np.array(
        [
            [np.float32(by_definition(int(codes[i, j]))) * scales[i // 128, j // 128] for j in range(shape[1])]
            for i in range(shape[0])
        ],
        np.float32,
    )
    rows = ScaledBlocks(Matrix(codes, F8_E4M3), Matrix(scales.view(np.uint8), get_format("F32")))
    assert rows.format.name == "F32"
    np.testing.assert_array_equal(read_rows(rows, 0, shape[0]).view(np.float32), expected)
    start, stop = shape[0] // 2, shape[0]
    np.testing.assert_array_equal(read_rows(rows, start, stop).view(np.float32), expected[start:stop])


def test_the_shape_of_scales():
    assert scale_shape((7168, 2048)) == (56, 16)
    assert scale_shape((576, 7168)) == (5, 56)


def test_fp8_codes_cannot_be_written():
    with pytest.raises(FormatError, match="F8_E4M3 can be read but not written"):
        F8_E4M3.quantize(np.zeros((1, 4), np.float32))
    assert "F8_E4M3" not in format_names()


def test_a_computed_row_is_float32():
    row = ComputedRow(np.array([1.0, 8.0], np.float32))
    assert (row.n_rows, row.n_columns, row.format.name) == (1, 2, "F32")
    assert read_rows(row, 0, 1).view(np.float32).tolist() == [[1.0, 8.0]]


def test_the_powers_of_two_of_ue8m0():
    codes = np.arange(256, dtype=np.uint8)
    expected = [2.0 ** (code - 127) for code in range(255)]
    np.testing.assert_array_equal(F8_E8M0.dequantize(codes[:255]), np.array(expected, np.float32))
    assert np.isnan(F8_E8M0.dequantize(codes[255:]))
    with pytest.raises(FormatError, match="F8_E8M0 can be read but not written"):
        F8_E8M0.quantize(np.ones((1, 4), np.float32))


@pytest.mark.slow
def test_the_codes_of_ue8m0_match_torch():
    torch = pytest.importorskip("torch")
    codes = np.arange(256, dtype=np.uint8)
    theirs = torch.from_numpy(codes).view(torch.float8_e8m0fnu).to(torch.float32).numpy()
    np.testing.assert_array_equal(F8_E8M0.dequantize(codes), theirs)


def matrices(shape, block, kind):
    """Codes and scales of random weights, and the format of the scales."""
    rng = np.random.default_rng(3)
    codes, grid = rng.integers(0, 0x7F, shape, np.uint8), scale_shape(shape, block)
    if kind == "F32":
        return codes, rng.uniform(1e-3, 2, grid).astype(np.float32)
    return codes, rng.integers(118, 130, grid, np.uint8)


def dequantized(codes, scales, block):
    format = {"f4": get_format("F32"), "u2": get_format("BF16"), "u1": F8_E8M0}[scales.dtype.str[1:]]
    packed = np.atleast_2d(scales).view(np.uint8)
    rows = ScaledBlocks(Matrix(codes, F8_E4M3), Matrix(packed, format), block)
    whole = read_rows(rows, 0, len(codes)).view(np.float32)
    pieces = [read_rows(rows, start, min(start + 7, len(codes))).view(np.float32) for start in range(0, len(codes), 7)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    return whole


@pytest.mark.parametrize("kind", ["F32", "F8_E8M0"])
@pytest.mark.parametrize(
    ("shape", "block"),
    [((96, 64), (128, 128)), ((256, 384), (128, 128)), ((64, 96), (1, 32)), ((60, 90), (20, 45)), ((8, 16), None)],
)
@pytest.mark.slow
def test_blocks_of_any_size_are_dequantized_as_in_transformers(shape, block, kind):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    codes, scales = matrices(shape, block, kind)
    theirs = Fp8Dequantize(None)._dequantize_one(
        torch.from_numpy(codes).view(torch.float8_e4m3fn),
        torch.from_numpy(scales) if kind == "F32" else torch.from_numpy(scales).view(torch.float8_e8m0fnu),
        torch.float32,
    )
    np.testing.assert_array_equal(dequantized(codes, scales, block), theirs.numpy())


def test_partial_blocks_at_the_edges_have_scales():
    codes, scales = matrices((70, 100), (32, 64), "F8_E8M0")
    assert scales.shape == (3, 2)
    expected = F8_E4M3.dequantize(codes) * F8_E8M0.dequantize(scales).repeat(32, 0).repeat(64, 1)[:70, :100]
    np.testing.assert_array_equal(dequantized(codes, scales, (32, 64)), expected)


def quantized_llama(folder, block, scales_of, kind):
    """A Llama whose projections are FP8 codes with scales made by ``scales_of(grid)``; returns the exact weights."""
    stored, kinds, exact = {}, {}, {}
    rng = np.random.default_rng(0)
    for name, array in weights(CONFIGS["llama"]).items():
        if "_proj" not in name:
            stored[name], kinds[name], exact[name] = array, "F32", array
            continue
        codes = rng.integers(0, 0x7F, array.shape, np.uint8)
        scales = scales_of(scale_shape(array.shape, block))
        stored |= {name: codes, f"{name}_scale_inv": scales}
        kinds |= {name: "F8_E4M3", f"{name}_scale_inv": kind}
        exact[name] = dequantized(codes, scales, block)
    quantization = {"quant_method": "fp8", "weight_block_size": block and list(block)}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIGS["llama"] | {"quantization_config": quantization}))
    save(folder / "model.safetensors", stored, kinds)
    return exact


@pytest.mark.parametrize("block", [(128, 128), (32, 16), (1, 32), None])
@pytest.mark.parametrize("kind", ["F32", "BF16", "F8_E8M0", "U8"])
def test_fp8_checkpoints_of_other_architectures(block, kind, tmp_path):
    rng = np.random.default_rng(4)
    scales_of = {
        "F32": lambda grid: rng.uniform(0.01, 1, grid).astype(np.float32),
        "BF16": lambda grid: bf16(rng.uniform(0.01, 1, grid)),
        "F8_E8M0": lambda grid: rng.integers(120, 128, grid, np.uint8),
    }
    exact = quantized_llama(tmp_path / "model", block, scales_of["F8_E8M0" if kind == "U8" else kind], kind)
    checkpoint = Checkpoint.open(tmp_path / "model")
    checkpoint.verify_complete()
    down = checkpoint.weight("blk.1.ffn_down.weight").dequantize()
    np.testing.assert_array_equal(down, exact["model.layers.1.mlp.down_proj.weight"])


def test_a_scale_grid_of_another_block_size_is_a_size_mismatch(tmp_path):
    quantized_llama(tmp_path / "model", (32, 16), lambda grid: np.ones(grid, np.float32), "F32")
    path = tmp_path / "model" / "config.json"
    path.write_text(path.read_text().replace("[32, 16]", "[128, 128]"))
    with pytest.raises(CheckpointError, match=r"q_proj\.weight_scale_inv' is \(2, 4\), expected \(1, 1\)"):
        Checkpoint.open(tmp_path / "model").verify_complete()


def test_nan_among_ue8m0_scales_is_found(tmp_path):
    def nan(grid):
        return np.full(grid, 255, np.uint8)

    quantized_llama(tmp_path / "model", (128, 128), nan, "F8_E8M0")
    with pytest.raises(CheckpointError, match=r"with NaN or infinite weights: .*_scale_inv"):
        Checkpoint.open(tmp_path / "model").verify_complete()


def test_inspect_counts_fp8_as_the_bytes_it_has(tmp_path):
    config, stored, kinds = fp8_checkpoint()
    (tmp_path / "config.json").write_text(json.dumps(config))
    save(tmp_path / "model.safetensors", stored, kinds)
    found = inspect(tmp_path)
    without_mtp = {name: array for name, array in stored.items() if ".layers.4." not in name}
    assert found.nbytes == sum(array.nbytes for array in without_mtp.values())
    formats = {use.role: use.format for use in found.tensors}
    assert (formats["attn_k_b"], formats["ffn_up_exps"], formats["token_embd"]) == ("F8_E4M3", "F8_E4M3", "BF16")
    assert 8 < found.bits_per_weight < 16


WIDE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "tie_word_embeddings": False}
WIDE_MOE = WIDE | {
    "num_key_value_heads": 2,
    "kv_lora_rank": 128,
    "moe_intermediate_size": 128,
    "n_routed_experts": 4,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 128,
    "v_head_dim": 64,
}


@pytest.mark.slow
@pytest.mark.parametrize("scale_fmt", ["float", "ue8m0"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_what_transformers_quantizes_and_saves_is_read(architecture, scale_fmt, tmp_path, monkeypatch):
    """Against the original within the rounding of E4M3, and exactly as transformers reads its own file.

    Of an MoE it saves codes per expert and the scales of all experts in one tensor, which it does not read back (5.24).
    """
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer

    monkeypatch.setattr(FineGrainedFP8HfQuantizer, "validate_environment", lambda *_, **__: None)  # it wants a GPU
    source = write_checkpoint(tmp_path / "source", architecture, **(WIDE_MOE if architecture == "deepseek2" else WIDE))

    def read(folder, **options):
        settings = transformers.FineGrainedFP8Config(scale_fmt=scale_fmt, **options)
        return transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype="float32", device_map="cpu", quantization_config=settings
        )

    read(source).save_pretrained(tmp_path / "fp8")
    read(tmp_path / "fp8", dequantize=True).save_pretrained(tmp_path / "plain")
    ours, theirs, original = (Checkpoint.open(path) for path in (tmp_path / "fp8", tmp_path / "plain", source))
    ours.verify_complete()
    assert ours.warnings == []
    assert ours.tensors["blk.0.ffn_down.weight"].stored_size()[0] == "F8_E4M3"
    for name in ours.names():
        found = ours.weight(name).dequantize()
        np.testing.assert_allclose(found, original.weight(name).dequantize(), rtol=1 / 16, atol=2e-3, err_msg=name)
        if "_exps" not in name:
            np.testing.assert_array_equal(found, theirs.weight(name).dequantize(), name)


def test_fused_experts_are_split(tmp_path):
    """What transformers 5 has in memory, and saves with ``save_original_format=False``."""
    tensors = weights(CONFIGS["deepseek2"])
    single = Checkpoint.open(write_checkpoint(tmp_path / "single"))
    for layer in range(1, 4):
        prefix = f"model.layers.{layer}.mlp.experts"
        experts = [[tensors.pop(f"{prefix}.{e}.{m}_proj.weight") for m in ("gate", "up", "down")] for e in range(8)]
        tensors[f"{prefix}.gate_up_proj"] = np.stack([np.concatenate([gate, up]) for gate, up, _ in experts])
        tensors[f"{prefix}.down_proj"] = np.stack([down for *_, down in experts])
    fused = write_checkpoint(tmp_path / "fused")
    save(fused / "model.safetensors", {name: bf16_nearest(array) for name, array in tensors.items()}, "BF16")
    checkpoint = Checkpoint.open(fused)
    checkpoint.verify_complete()
    for name in single.names():
        np.testing.assert_array_equal(checkpoint.weight(name).packed, single.weight(name).packed, name)


def bf16_nearest(array):
    return get_format("BF16").quantize(np.atleast_2d(array)).view(np.uint16).reshape(array.shape)
