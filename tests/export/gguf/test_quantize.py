import gguf
import numpy as np
import pytest
from tiny_checkpoint import CONFIGS, write_checkpoint

from sprat.errors import ExportError, FormatError, ModelFileError
from sprat.export.gguf.layout import TensorEntry, gguf_layout
from sprat.export.gguf.quantize import quantize
from sprat.export.pipeline import export
from sprat.export.write.writer import write_file
from sprat.files import file_sha256
from sprat.quant.formats import get_format


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Architecture -> its GGUF in float16."""
    folder = tmp_path_factory.mktemp("sources")
    checkpoints = {name: write_checkpoint(folder / name, name) for name in CONFIGS}
    return {
        name: export(path, folder / f"{name}-f16", quant="f16").bundle.artifact() for name, path in checkpoints.items()
    }


@pytest.fixture
def source(sources):
    return sources["deepseek2"]


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("quant", ["int4", "int8", "q5_1"])
def test_quantize_writes_the_file_that_a_blind_export_writes(sources, tmp_path, architecture, quant):
    result = quantize(sources[architecture], tmp_path / "out.gguf", quant=quant)
    exported = export(sources[architecture], tmp_path / "bundle", quant=quant, quality="none").bundle.artifact()
    ours, theirs = gguf.GGUFReader(tmp_path / "out.gguf"), gguf.GGUFReader(exported)
    assert {key: field.contents() for key, field in ours.fields.items()} == {
        key: field.contents() for key, field in theirs.fields.items()
    }
    for found, expected in zip(ours.tensors, theirs.tensors, strict=True):
        assert (found.name, found.tensor_type) == (expected.name, expected.tensor_type)
        np.testing.assert_array_equal(found.data, expected.data)
    assert result.file.sha256 == file_sha256(tmp_path / "out.gguf")


def test_every_key_keeps_its_value_and_type(tmp_path):
    keys = {
        "general.architecture": "unknown",
        "u16": np.uint16(3),
        "i64": np.int64(3),
        "u32": np.uint32(3),
        "i32": np.int32(3),
        "f64": np.float64(0.1),
        "f32": np.float32(0.1),
        "flag": False,
        "texts": ["a", "b"],
        "i8s": np.array([-1, 1], np.int8),
        "u64s": np.array([1 << 63], np.uint64),
        "flags": [True, False],
    }
    entry = TensorEntry("some.weight", (4, 64), get_format("F32"))
    rows = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    write_file(tmp_path / "in.gguf", gguf_layout(keys, [entry]), lambda _: [rows.view(np.uint8)])
    quantize(tmp_path / "in.gguf", tmp_path / "out.gguf", quant="q8_0")
    before, after = (gguf.GGUFReader(tmp_path / name).fields for name in ("in.gguf", "out.gguf"))
    for key in keys:
        assert (after[key].types, after[key].contents()) == (before[key].types, before[key].contents())
    assert after["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q8_0


def test_tensors_that_keep_their_format_keep_their_bytes(source, tmp_path):
    once = quantize(source, tmp_path / "once.gguf", quant="int4").file.path
    twice = quantize(once, tmp_path / "twice.gguf", quant="int4").file.path
    assert once.read_bytes() == twice.read_bytes()


def test_rules_fallbacks_and_alignment(source, tmp_path):
    result = quantize(source, tmp_path / "out.gguf", quant="q6_k", tensor_rules=["ffn_down_exps=q5_0"], align=64)
    formats = {group.role: (group.wanted, group.format) for group in result.groups}
    assert formats["ffn_down_exps"] == ("Q5_0", "Q5_0")
    assert formats["attn_q"] == ("Q6_K", "Q8_0")
    assert "attn_q" in {group.role for group in result.fallbacks}
    assert result.notes == ()
    assert gguf.GGUFReader(tmp_path / "out.gguf").alignment == 64


def test_a_rule_that_matches_nothing_fails_before_anything_is_written(source, tmp_path):
    with pytest.raises(FormatError, match="--tensor no=q4_0: matches no tensor"):
        quantize(source, tmp_path / "folder" / "out.gguf", tensor_rules=["no=q4_0"])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_made(source, tmp_path):
    assert quantize(source, tmp_path / "a" / "b" / "out.gguf").file.path.is_file()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match=r"cannot be written"):
        quantize(source, tmp_path / "file" / "out.gguf")


@pytest.mark.parametrize("force", [True, False])
def test_a_folder_is_no_target(force, source, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match=r"out: is a folder; give the name of a file, for example .*out/model\.gguf"):
        quantize(source, tmp_path / "out", force=force)


def test_the_alignment_of_the_source_is_kept(source, tmp_path):
    quantize(source, tmp_path / "pages.gguf", quant="int8", align=4096)
    quantize(tmp_path / "pages.gguf", tmp_path / "out.gguf", quant="int4")
    assert (
        gguf.GGUFReader(tmp_path / "pages.gguf").alignment == gguf.GGUFReader(tmp_path / "out.gguf").alignment == 4096
    )


def test_an_existing_file_is_replaced_only_with_force_and_the_source_never(source, tmp_path):
    out = tmp_path / "out.gguf"
    out.write_bytes(b"older")
    with pytest.raises(ExportError, match="exists; choose another name, or replace it with --force"):
        quantize(source, out)
    assert out.read_bytes() == b"older"
    quantize(source, out, force=True)
    (tmp_path / "link.gguf").symlink_to(source)
    for place in (source, tmp_path / "link.gguf"):
        with pytest.raises(ExportError, match="is the source itself"):
            quantize(source, place, force=True)


@pytest.mark.parametrize(
    ("data", "arguments", "error"),
    [
        (b"GGUF but no more", {}, ModelFileError),
        (b"", {}, ModelFileError),
        (None, {"quant": "int5"}, FormatError),
        (None, {"tensor_rules": ["x"]}, FormatError),
    ],
)
def test_a_wrong_argument_leaves_nothing_behind(source, tmp_path, data, arguments, error):
    given = source
    if data is not None:
        given = tmp_path / "in.gguf"
        given.write_bytes(data)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error):
        quantize(given, tmp_path / "out.gguf", **arguments)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["out.gguf.partial", "out.gguf.journal"])
def test_files_of_someone_else_beside_the_output_are_never_touched(name, source, tmp_path):
    mine = tmp_path / name
    mine.write_text("mine")
    with pytest.raises(ExportError, match=rf"{name}: exists and was not made by sprat; move it away"):
        quantize(source, tmp_path / "out.gguf", quant="q8_0", force=True)
    assert mine.read_text() == "mine"
    assert not (tmp_path / "out.gguf").exists()
