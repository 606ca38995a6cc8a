import hashlib
import json

import pytest

from sprat.errors import BundleError
from sprat.runtime.files.bundle import Bundle

WEIGHTS, TOKENIZER = b"weights", b"{}"


def described(name, data):
    return {"name": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


MANIFEST = {
    "schema_version": 1,
    "name": "student",
    "artifacts": [{"format": "gguf", "file": "model.gguf", "plan": "0" * 64}],
    "files": [described("model.gguf", WEIGHTS), described("text/tokenizer.json", TOKENIZER)],
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


def test_a_bundle_names_its_files(folder):
    bundle = Bundle.open(folder)
    assert bundle.artifact() == folder / "model.gguf"
    assert bundle.file("text/tokenizer.json") == folder / "text" / "tokenizer.json"
    assert bundle.file("chat_template.jinja") is None
    bundle.check_hashes()


def test_a_format_that_it_does_not_hold_is_named_with_those_it_holds(folder):
    with pytest.raises(BundleError, match="holds no 'onnx' artifact, only gguf; export it with --format onnx"):
        Bundle.open(folder).artifact("onnx")


def test_a_byte_that_changed_is_found_on_request(folder):
    (folder / "model.gguf").write_bytes(b"weighty")
    (folder / "text" / "tokenizer.json").write_bytes(b"[]")
    bundle = Bundle.open(folder)
    with pytest.raises(BundleError, match=r"'model\.gguf' has SHA-256 .*'text/tokenizer\.json' has SHA-256"):
        bundle.check_hashes()


def test_a_size_that_changed_and_a_file_that_is_missing_are_found_at_once(folder):
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
def test_a_name_that_could_leave_the_folder_is_refused(folder, name):
    change(folder, files=[*MANIFEST["files"], described(name, b"")])
    with pytest.raises(BundleError, match=r"file name .* (is not a plain|holds a character|is the manifest)"):
        Bundle.open(folder)


@pytest.mark.parametrize("other", ["model.gguf", "MODEL.gguf"])
def test_names_that_are_one_on_some_file_system_are_refused(folder, other):
    change(folder, files=[described("model.gguf", WEIGHTS), described(other, b"")])
    with pytest.raises(BundleError, match="2 files are called"):
        Bundle.open(folder)


def test_a_link_that_leaves_the_folder_is_refused(folder, tmp_path_factory):
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
    ("changes", "complaint"),
    [
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"name": 5}, r"Expected `str`, got `int` - at `\$.name`"),
        ({"schema_version": 2}, "schema version 2, expected 1; use the sprat that wrote it"),
        ({"files": [described("model.gguf", WEIGHTS) | {"size_bytes": -1}]}, ">= 0"),
        ({"files": [described("model.gguf", WEIGHTS) | {"sha256": "x"}]}, "matching regex"),
        ({"files": [described("model.gguf", WEIGHTS) | {"url": "http://"}]}, "unknown field `url`"),
    ],
)
def test_a_manifest_of_another_shape_is_refused(folder, changes, complaint):
    change(folder, **changes)
    with pytest.raises(BundleError, match=complaint):
        Bundle.open(folder)


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"\xff", b"[" * 100_000, b'{"name": "student"}'])
def test_what_is_no_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(BundleError, match=r"manifest\.json: not a manifest"):
        Bundle.open(folder)


def test_an_endless_manifest_is_not_read_to_its_end(folder):
    (folder / "manifest.json").write_bytes(b" " * (1 << 24) + b"{}")
    with pytest.raises(BundleError, match="no manifest is that long"):
        Bundle.open(folder)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="expected a folder made by sprat export"):
        Bundle.open(tmp_path)
