import hashlib
import json

import pytest

from sprat.errors import BundleError
from sprat.runtime.files.bundle import Bundle

WEIGHTS, TOKENIZER = b"weights", b"{}"


def file_entry(name, data):
    return {"name": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


MANIFEST = {
    "schema_version": 1,
    "name": "student",
    "artifacts": [{"format": "gguf", "file": "model.gguf", "plan": "0" * 64}],
    "files": [file_entry("model.gguf", WEIGHTS), file_entry("text/tokenizer.json", TOKENIZER)],
    "source": {"name": "student", "format": "safetensors", "hash": "abc", "quantized": False},
    "spec": {"n_layers": 4},
    "recipe": "int4",
    "tensor_groups": [],
    "device": None,
    "versions": {"sprat": "0.1.0"},
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "model.gguf").write_bytes(WEIGHTS)
    (tmp_path / "text" / "tokenizer.json").write_bytes(TOKENIZER)
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    return tmp_path


def change(folder, **changes):
    (folder / "manifest.json").write_text(json.dumps(MANIFEST | changes))


def test_a_bundle_gives_the_paths_of_its_files(folder):
    bundle = Bundle.open(folder)
    assert bundle.artifact() == folder / "model.gguf"
    assert bundle.file("text/tokenizer.json") == folder / "text" / "tokenizer.json"
    assert bundle.file("chat_template.jinja") is None
    bundle.check()


def test_the_error_for_a_missing_format_names_the_available_ones(folder):
    with pytest.raises(BundleError, match="no 'onnx' artifact in this bundle, only gguf; export it with --format onnx"):
        Bundle.open(folder).artifact("onnx")


def test_check_hashes_finds_all_changed_files(folder):
    (folder / "model.gguf").write_bytes(b"weighty")
    (folder / "text" / "tokenizer.json").write_bytes(b"[]")
    bundle = Bundle.open(folder)
    with pytest.raises(BundleError, match=r"'model\.gguf' has SHA-256 .*'text/tokenizer\.json' has SHA-256"):
        bundle.check()


def test_open_finds_changed_sizes_and_missing_files(folder):
    (folder / "model.gguf").write_bytes(WEIGHTS + b"!")
    (folder / "text" / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"'model\.gguf' has 8 bytes, the manifest says 7; .*json' is missing"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../model.gguf",
        "text/../../model.gguf",
        "text/../model.gguf",
        "./model.gguf",
        "text//tokenizer.json",
        "text/",
        "",
        ".",
        "model\0.gguf",
        "model\n.gguf",
        "C:\\model.gguf",
        "text\\tokenizer.json",
        "\u202emodel.gguf",
        "manifest.json",
    ],
)
def test_a_name_that_could_leave_the_folder_is_an_error(folder, name):
    change(folder, files=[*MANIFEST["files"], file_entry(name, b"")])
    with pytest.raises(BundleError, match=r"file name .* (is not a plain|holds a character|is the manifest)"):
        Bundle.open(folder)


@pytest.mark.parametrize("other", ["model.gguf", "MODEL.gguf"])
def test_names_that_collide_on_some_file_systems_are_an_error(folder, other):
    change(folder, files=[file_entry("model.gguf", WEIGHTS), file_entry(other, b"")])
    with pytest.raises(BundleError, match="2 files have the name"):
        Bundle.open(folder)


def test_a_link_that_leaves_the_folder_is_an_error(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("elsewhere") / "model.gguf"
    outside.write_bytes(WEIGHTS)
    (folder / "model.gguf").unlink()
    (folder / "model.gguf").symlink_to(outside)
    with pytest.raises(BundleError, match=r"'model\.gguf' is a link that leaves the folder"):
        Bundle.open(folder)


def test_an_artifact_must_be_among_the_files(folder):
    change(folder, artifacts=[{"format": "gguf", "file": "other.gguf", "plan": "0" * 64}])
    with pytest.raises(BundleError, match=r"artifact 'other\.gguf' is not among the files"):
        Bundle.open(folder)
    change(folder, artifacts=[])
    with pytest.raises(BundleError, match="there is no artifact"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"name": 5}, r"Expected `str`, got `int` - at `\$.name`"),
        ({"schema_version": 2}, "schema version 2, expected 1; use the version of sprat that wrote it"),
        ({"files": [file_entry("model.gguf", WEIGHTS) | {"size_bytes": -1}]}, ">= 0"),
        ({"files": [file_entry("model.gguf", WEIGHTS) | {"sha256": "x"}]}, "matching regex"),
        ({"files": [file_entry("model.gguf", WEIGHTS) | {"url": "http://"}]}, "unknown field `url`"),
    ],
)
def test_a_manifest_with_invalid_fields_is_an_error(folder, changes, message):
    change(folder, **changes)
    with pytest.raises(BundleError, match=message):
        Bundle.open(folder)


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"\xff", b"[" * 100_000, b'{"name": "student"}'])
def test_a_file_that_is_not_a_manifest_is_an_error(folder, text):
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(BundleError, match=r"manifest\.json: not a manifest"):
        Bundle.open(folder)


def test_a_very_large_manifest_is_not_read(folder):
    (folder / "manifest.json").write_bytes(b" " * (1 << 24) + b"{}")
    with pytest.raises(BundleError, match="larger than 16,777,216 bytes"):
        Bundle.open(folder)


def test_a_folder_without_a_manifest_is_not_a_bundle(tmp_path):
    with pytest.raises(BundleError, match="expected a folder written by `sprat export`"):
        Bundle.open(tmp_path)
