import json
import shutil

import gguf
import numpy as np
import pytest
from tiny_checkpoint import CONFIGS, TEMPLATE, shapes, weights, write_checkpoint, write_weights

from sprat.errors import CheckpointError, DeviceError, DoesNotFitError, ExportError, FormatError, InputError
from sprat.export.pipeline import export
from sprat.files import file_sha256
from sprat.runtime.arch.gguf_keys import spec_from_metadata
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.tensors import expected_tensors
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Architecture -> a tiny checkpoint."""
    folder = tmp_path_factory.mktemp("sources")
    found = {name: write_checkpoint(folder / f"tiny-{name}-Chat", name) for name in CONFIGS}
    for source in found.values():
        (source / "README.md").write_text("---\nlicense: mit\n---\nA student.\n")
    return found


@pytest.fixture
def source(sources):
    return sources["deepseek2"]


def read(bundle):
    """Keys, and tensors as float32, of the bundle's GGUF, read by the gguf package."""
    reader = gguf.GGUFReader(bundle.artifact())
    keys = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    return keys, {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_checkpoint_becomes_a_bundle(sources, tmp_path, architecture):
    result = export(sources[architecture], tmp_path / "out", quant="int8")
    result.bundle.check()
    manifest = result.bundle.manifest
    assert manifest.source.name == f"tiny-{architecture}-Chat"
    assert manifest.spec["architecture"] == architecture
    assert manifest.recipe == "int8"
    assert manifest.warnings == ()
    assert result.bundle.file("tokenizer.json").read_bytes() == (sources[architecture] / "tokenizer.json").read_bytes()
    assert result.bundle.file("chat_template.jinja").read_text() == TEMPLATE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_gguf_has_the_spec_of_the_config(sources, tmp_path, architecture):
    path = export(sources[architecture], tmp_path / "out", quant="f16").bundle.artifact()
    spec = spec_from_config(json.loads((sources[architecture] / "config.json").read_text()))
    with GGUFFile.open(path) as file:
        assert spec_from_metadata(file.metadata, file) == spec
        assert {name: info.shape for name, info in file.tensors.items()} == expected_tensors(spec)
        tokenizer = Tokenizer.from_gguf(file.metadata)
    original = Tokenizer.from_file(sources[architecture] / "tokenizer.json")
    assert tokenizer.encode("The lazy dog, 12 apples.") == original.encode("The lazy dog, 12 apples.")


def test_general_keys(source, tmp_path):
    keys, _ = read(export(source, tmp_path / "out", quant="q4_0").bundle)
    general = {key.removeprefix("general."): value for key, value in keys.items() if key.startswith("general.")}
    assert general == {
        "architecture": "deepseek2",
        "type": "model",
        "name": "tiny-deepseek2-Chat",
        "basename": "tiny-deepseek2",
        "finetune": "Chat",
        "size_label": "8x310K",
        "license": "mit",
        "file_type": gguf.LlamaFileType.MOSTLY_Q4_0,
        "quantization_version": gguf.GGML_QUANT_VERSION,
    }


def test_float32_weights_are_exact_after_renaming_stacking_and_transposing(source, tmp_path):
    config = json.loads((source / "config.json").read_text())
    original = weights(config)
    _, found = read(export(source, tmp_path / "out", quant="f32").bundle)

    def expect(name, array):
        rounded = (array.view(np.uint32) + 0x7FFF + (array.view(np.uint32) >> 16 & 1)) >> 16 << 16
        np.testing.assert_array_equal(found[name], rounded.astype(np.uint32).view(np.float32))

    expect("token_embd.weight", original["model.embed_tokens.weight"])
    expect("blk.0.attn_q.weight", original["model.layers.0.self_attn.q_proj.weight"])
    experts = [original[f"model.layers.2.mlp.experts.{expert}.down_proj.weight"] for expert in range(8)]
    expect("blk.2.ffn_down_exps.weight", np.stack(experts))
    kv_b = original["model.layers.1.self_attn.kv_b_proj.weight"].reshape(4, 32 + 32, 64)
    expect("blk.1.attn_k_b.weight", np.ascontiguousarray(kv_b[:, :32].swapaxes(1, 2)))
    expect("blk.1.attn_v_b.weight", np.ascontiguousarray(kv_b[:, 32:]))


def test_blind_int4_uses_q8_0_for_latent_projections_and_head(source, tmp_path):
    result = export(source, tmp_path / "out", quant="int4", quality="none")
    formats = {group.role: group.format for group in result.groups}
    assert formats["ffn_down_exps"] == formats["attn_output"] == formats["ffn_up_shexp"] == "Q4_0"
    assert formats["attn_kv_a_mqa"] == formats["attn_k_b"] == formats["attn_v_b"] == formats["output"] == "Q8_0"
    assert formats["ffn_gate_inp"] == formats["attn_norm"] == formats["attn_kv_a_norm"] == "F32"
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(result.bundle.artifact()).tensors}
    assert {kinds[f"blk.{layer}.ffn_down_exps.weight"] for layer in (1, 2, 3)} == {"Q4_0"}
    size = sum(group.size_bytes for group in result.groups)
    assert result.bits_per_weight == 8 * size / sum(np.prod(shape) for shape in shapes(CONFIGS["deepseek2"]).values())


def test_rules_and_fallbacks_are_reported(source, tmp_path):
    result = export(source, tmp_path / "out", quant="q4_k", tensor_rules=["ffn_down_exps=q5_1"])
    formats = {group.role: (group.wanted, group.format) for group in result.groups}
    assert formats["ffn_down_exps"] == ("Q5_1", "Q5_1")
    assert formats["attn_q"] == ("Q4_K", "Q5_0")  # rows of 64 do not divide into blocks of 256
    assert "attn_q" in {group.role for group in result.fallbacks}
    assert result.bundle.artifact().name.endswith("-Q5_0.gguf")  # what most weights that wanted Q4_K have
    file_type = gguf.GGUFReader(result.bundle.artifact()).fields["general.file_type"].contents()
    assert file_type == gguf.LlamaFileType.MOSTLY_Q5_0
    assert result.bundle.manifest.warnings == ()
    assert result.bundle.manifest.recipe == "q4_k ffn_down_exps=q5_1"


@pytest.mark.parametrize("rule", ["atn_q=q8_0", "ffn_gate_inp=q8_0", "norm=q8_0"])
def test_a_rule_that_matches_nothing_fails_before_anything_is_written(rule, source, tmp_path):
    with pytest.raises(
        FormatError, match=rf"--tensor {rule}: matches no tensor that can be quantized; `sprat inspect "
    ):
        export(source, tmp_path / "out", tensor_rules=["ffn_down_exps=q5_1", rule])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.gguf", "out.onnx", "out.safetensors"])
def test_a_target_that_is_named_like_a_file_is_refused(name, source, tmp_path):
    with pytest.raises(InputError, match=r"an export writes a folder.* for example .*/out "):
        export(source, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_quantized_source_that_grows_is_a_note(source, tmp_path):
    small = export(source, tmp_path / "small", quant="q4_0")
    assert small.notes == ()
    grown = export(small.bundle.artifact(), tmp_path / "large", quant="int8")
    assert len(grown.notes) == 1
    assert "is no more accurate than its quantized source: --quant keep leaves" in grown.notes[0]
    assert export(small.bundle.artifact(), tmp_path / "kept", quant="keep").notes == ()


def test_with_a_device_the_next_smaller_choice_is_a_note(source, tmp_path):
    best = export(source, tmp_path / "best", device="rpi5-8gb")
    assert best.plan.footprint.quant == "int8"
    assert best.notes[0].startswith("int8 is the most accurate that fits; int4 takes ")
    assert best.notes[0].endswith("(predicted): --quant int4")
    (note,) = export(source, tmp_path / "chosen", device="rpi5-8gb", quant="int4").notes
    assert note.startswith("predicted with these formats on rpi5-8gb: ")
    assert export(source, tmp_path / "blind", device="rpi5-8gb", quant="int4", quality="none").notes == ()


@pytest.mark.parametrize(
    ("architecture", "align", "expected"), [("deepseek2", None, 32), ("deepseek2", 4096, 4096), ("qwen2", None, 32)]
)
def test_tensors_are_aligned_as_llamacpp_expects_or_as_asked(sources, tmp_path, architecture, align, expected):
    path = export(sources[architecture], tmp_path / "out", align=align).bundle.artifact()
    reader = gguf.GGUFReader(path)
    assert reader.alignment == expected
    assert all(tensor.data_offset % expected == 0 for tensor in reader.tensors)


def test_two_exports_are_the_same_bytes(source, tmp_path):
    first, second = (export(source, tmp_path / name).bundle.artifact() for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


def test_repeating_an_export_reuses_its_bundle(source, tmp_path):
    export(source, tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").stat()
    again = export(source, tmp_path / "out")
    assert again.notes == ("the bundle exists already and is up to date",)
    assert (tmp_path / "out" / "manifest.json").stat() == before


def test_another_export_does_not_replace_a_bundle_without_force(source, tmp_path):
    export(source, tmp_path / "out")
    with pytest.raises(ExportError, match=r"another bundle exists there.*--force"):
        export(source, tmp_path / "out", quant="int8")
    assert export(source, tmp_path / "out", quant="int8", force=True).bundle.manifest.recipe == "int8"


def test_a_bundle_can_be_made_of_a_gguf(source, tmp_path):
    first = export(source, tmp_path / "f16", quant="f16")
    again = export(first.bundle.artifact(), tmp_path / "again", quant="q4_0")
    direct = export(source, tmp_path / "direct", quant="q4_0")
    keys, found = read(again.bundle)
    expected_keys, expected = read(direct.bundle)
    assert keys == expected_keys
    assert again.bundle.manifest.source.format == "gguf"
    assert again.bundle.file("tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=0.05 * np.abs(array).max())


def test_a_quantized_source_is_a_warning(source, tmp_path):
    first = export(source, tmp_path / "int8", quant="int8")
    again = export(first.bundle.artifact(), tmp_path / "int4", quant="int4")
    assert again.bundle.manifest.source.quantized
    assert "the source is quantized" in again.bundle.manifest.warnings[0]


def test_a_device_gets_the_best_recipe_that_fits(source, tmp_path):
    result = export(source, tmp_path / "out", device="rpi5-8gb")
    assert result.plan.fits
    assert result.bundle.manifest.recipe == "int8"
    assert result.bundle.manifest.device == "rpi5-8gb"


def test_a_model_that_does_not_fit_is_an_error_before_weights_are_read(tmp_path):
    huge = write_checkpoint(tmp_path / "huge", max_position_embeddings=1 << 24)
    with pytest.raises(DoesNotFitError, match=r"int4. on rpi-zero-2w needs .* GiB"):
        export(huge, tmp_path / "out", device="rpi-zero-2w", context=1 << 24)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["huge"]
    forced = export(huge, tmp_path / "out", device="rpi-zero-2w", context=1 << 24, force=True)
    assert not forced.plan.fits


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"quant": "int5"}, FormatError, "unknown quantization 'int5'"),
        ({"device": "rpi5-8g"}, DeviceError, "did you mean 'rpi5-8gb'"),
        ({"formats": ["onxx"]}, InputError, "unknown artifact format 'onxx'"),
        ({"formats": []}, InputError, "no artifact format was given"),
        ({"tensor_rules": ["ffn"]}, FormatError, "expected PATTERN=FORMAT"),
        ({"align": 48}, ExportError, "alignment 48 is not a power of two"),
    ],
)
def test_a_wrong_argument_leaves_nothing_behind(source, tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        export(source, tmp_path / "out", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_source_leaves_nothing_behind(tmp_path):
    source = write_checkpoint(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    damaged = weights(config)
    del damaged["model.norm.weight"]
    damaged["model.layers.1.mlp.gate.weight"][3, 5] = np.nan
    damaged["model.layers.2.mlp.experts.7.up_proj.weight"][0, 0] = np.inf
    write_weights(source / "model.safetensors", damaged)
    with pytest.raises(CheckpointError) as caught:
        export(source, tmp_path / "out")
    for name in ("model.norm.weight", "model.layers.1.mlp.gate.weight", "model.layers.2.mlp.experts.7.up_proj.weight"):
        assert name in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_source_that_changes_while_it_is_read_gives_an_error_and_no_bundle(tmp_path):
    source = write_checkpoint(tmp_path / "source")
    other = write_checkpoint(tmp_path / "other", seed=1)

    def swap(progress):
        if progress.what.startswith("blk.2."):
            shutil.copyfile(other / "model.safetensors", source / "model.safetensors")

    with pytest.raises(ExportError, match=r"model\.safetensors: the source changed while it was read"):
        export(source, tmp_path / "out", progress=swap)
    assert not (tmp_path / "out").exists()
    assert export(source, tmp_path / "out").notes == ("an unfinished file of another source was discarded",)


def test_a_full_disk_is_an_error_before_the_source_is_read(source, tmp_path, monkeypatch):
    monkeypatch.setattr("sprat.export.write.writer.free_bytes", lambda folder: 1000)
    monkeypatch.setattr("sprat.export.source.checkpoint.Checkpoint.verify_complete", lambda *_: pytest.fail("was read"))
    with pytest.raises(ExportError, match=r"bytes are still to be written and 1,000 are free; free [\d,]+ bytes"):
        export(source, tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []


def test_progress_covers_the_source_and_then_the_file(source, tmp_path):
    seen = []
    bundle = export(source, tmp_path / "out", progress=seen.append).bundle
    reading = [event for event in seen if event.what == "reading the source"]
    writing = seen[len(reading) :]
    source_bytes = sum((source / name).stat().st_size for name in ("config.json", "model.safetensors"))
    assert {event.total for event in reading} == {source_bytes}
    assert [event.done for event in reading] == sorted(event.done for event in reading)
    assert reading[-1].done == source_bytes
    assert writing[-1].total == bundle.artifact().stat().st_size
    assert len({event.what for event in writing}) == len(gguf.GGUFReader(bundle.artifact()).tensors)


def test_the_manifest_describes_the_file(source, tmp_path):
    bundle = export(source, tmp_path / "out").bundle
    artifact = bundle.artifact()
    described = {file.name: file for file in bundle.manifest.files}[artifact.name]
    assert (described.size_bytes, described.sha256) == (artifact.stat().st_size, file_sha256(artifact))


def test_a_partial_folder_of_someone_else_is_found_before_the_source_is_read(tmp_path):
    source = write_checkpoint(tmp_path / "source", "qwen2")
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "notes.txt").write_text("mine")
    seen = []
    with pytest.raises(ExportError, match=r"out\.partial: exists and was not made by sprat export"):
        export(source, tmp_path / "out", quant="int8", progress=seen.append)
    assert not seen
    assert [path.name for path in (tmp_path / "out.partial").iterdir()] == ["notes.txt"]
