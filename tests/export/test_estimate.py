"""``sprat export --dry-run``: the sizes are those of the export, and nothing is written."""

import pytest
from safetensors_files import save
from tiny_checkpoint import CONFIGS, weights, write_checkpoint

from sprat.errors import CheckpointError, ExportError, FormatError
from sprat.export.estimate import estimate_export
from sprat.export.pipeline import export


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("source") / "tiny")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quant": "q4_k", "tensor_rules": ["ffn_down_exps=q5_1"]},
        {"split": 64 << 10},
        {"formats": ["gguf", "onnx"], "quant": "int8"},
        {"device": "rpi5-8gb"},
    ],
)
def test_sizes_and_groups_are_those_of_the_export(options, source, tmp_path):
    found = estimate_export(source, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []
    made = export(source, tmp_path / "out", **options)
    written = {file.name: file.size_bytes for file in made.bundle.manifest.files}
    graphs = {name for name in written if name.endswith(".onnx")}  # the source's hash is not known before it is read
    assert {name: size for name, size in found.files.items() if name not in graphs} == {
        name: size for name, size in written.items() if name not in graphs
    }
    assert all(abs(found.files[name] - written[name]) < 200 for name in graphs)
    assert found.tensor_groups == made.groups
    assert found.recipe == made.bundle.manifest.recipe
    assert found.size_bytes == sum(found.files.values())
    assert found.notes == made.notes
    assert (found.plan is None) == (made.plan is None)


def test_of_a_gguf_as_well(source, tmp_path):
    made = export(source, tmp_path / "first", quant="int8")
    found = estimate_export(made.bundle.artifact(), tmp_path / "second", quant="keep")
    assert found.tensor_groups == made.groups
    assert found.source_bytes == made.bundle.artifact().stat().st_size


def test_free_space_and_what_is_missing(source, tmp_path, monkeypatch):
    monkeypatch.setattr("sprat.export.estimate.free_bytes", lambda _path: 1000)
    found = estimate_export(source, tmp_path / "deep" / "out")
    assert (found.free_bytes, found.missing_bytes) == (1000, found.size_bytes - 1000)


def test_time_grows_with_the_work(source, tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("sprat.export.estimate.time.perf_counter", lambda: next(clock))  # every sample takes a second
    one = estimate_export(source, tmp_path / "out", quality="none").seconds
    clock = iter(range(1000))
    both = estimate_export(source, tmp_path / "out", formats=["gguf", "onnx"]).seconds
    assert 1 < one < both


def test_what_the_export_would_refuse_is_refused(source, tmp_path):
    with pytest.raises(FormatError, match="matches no tensor"):
        estimate_export(source, tmp_path / "out", tensor_rules=["no=q4_0"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_bytes(b"")
    with pytest.raises(ExportError, match="exists and is not a sprat bundle"):
        estimate_export(source, tmp_path / "mine")
    broken = write_checkpoint(tmp_path / "broken", "qwen2")
    tensors = weights(CONFIGS["qwen2"])
    save(broken / "model.safetensors", dict(list(tensors.items())[1:]))
    with pytest.raises(CheckpointError, match="1 missing: "):
        estimate_export(broken, tmp_path / "out")


def test_a_place_that_cannot_be_written_is_refused(source, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match="file is not a folder that can be written"):
        estimate_export(source, tmp_path / "file" / "deep" / "out")


def test_an_existing_bundle_is_a_note(source, tmp_path):
    export(source, tmp_path / "out")
    (note,) = estimate_export(source, tmp_path / "out").notes
    assert "an export of another recipe needs --force" in note
    assert estimate_export(source, tmp_path / "out", force=True).notes == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"quality": "best"},
            "--quality best chooses formats during the export: shown are those of int4",
        ),
        ({"target_size": "400KB"}, "the model's file will take at most about 390.6 KiB"),
        ({"target_size": "1000GB"}, "the model's file will take at most about 461.9 KiB"),
        ({"target_bpw": 8.0}, "the model's file will take at most about "),
    ],
)
def test_formats_that_calibration_chooses_are_not_promised(options, said, source, tmp_path):
    (note,) = estimate_export(source, tmp_path / "out", **options).notes
    assert said in note
