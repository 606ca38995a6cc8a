import msgspec
import pytest

from sprat.errors import ExportError
from sprat.export.write.bundle import BundleFolder, existing_manifest
from sprat.runtime.files.bundle import Artifact, Bundle, Manifest, Source


def manifest(*files, name="student"):
    return Manifest(
        name=name,
        artifacts=(Artifact(format="gguf", file="model.gguf", layout_digest="0" * 64),),
        files=files,
        source=Source(name="s", format="safetensors", hash="h", quantized=False),
        spec={},
        recipe="int4",
        tensor_groups=(),
        device=None,
        versions={},
    )


def begin(out):
    folder = BundleFolder.beside(out)
    folder.make()
    return folder


def build(out, *, data=b"weights", name="student"):
    folder = begin(out)
    return folder.finish(manifest(folder.add("model.gguf", data), folder.add("tokenizer.json", b"{}"), name=name))


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_bundle_appears_only_when_complete(tmp_path):
    out = tmp_path / "deep" / "out"
    folder = begin(out)
    folder.add("model.gguf", b"weights")
    assert not out.exists()
    bundle = build(out)
    bundle.check()
    assert tree(tmp_path / "deep") == ["out", "out/manifest.json", "out/model.gguf", "out/tokenizer.json"]
    assert Bundle.open(out).manifest == bundle.manifest


def test_the_manifest_is_indented_json_in_field_order(tmp_path):
    build(tmp_path / "out")
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert text.startswith('{\n  "schema_version": 1,\n  "name": "student",\n')
    assert msgspec.json.decode(text)["files"][1] == {
        "name": "tokenizer.json",
        "size_bytes": 2,
        "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    }


def test_files_of_an_interrupted_run_are_reused_and_leftovers_removed(tmp_path):
    first = begin(tmp_path / "out")
    for name in ("model.gguf.partial", "model.gguf.journal", "other-recipe.gguf"):
        first.add(name, b"before")
    second = begin(tmp_path / "out")
    assert (second.partial / "model.gguf.partial").read_bytes() == b"before"
    build(tmp_path / "out")
    assert tree(tmp_path / "out") == ["manifest.json", "model.gguf", "tokenizer.json"]


def test_a_bundle_is_kept_until_its_replacement_is_complete(tmp_path):
    build(tmp_path / "out")
    begin(tmp_path / "out").add("model.gguf", b"newer")
    Bundle.open(tmp_path / "out").check()
    build(tmp_path / "out", data=b"newer", name="newer")
    assert Bundle.open(tmp_path / "out").manifest.name == "newer"
    assert tree(tmp_path) == ["out", "out/manifest.json", "out/model.gguf", "out/tokenizer.json"]


@pytest.mark.parametrize("what", ["a file", "another folder", "a folder with another manifest.json", "a link"])
def test_files_that_are_not_a_bundle_are_never_replaced(tmp_path, what):
    out, precious = tmp_path / "out", tmp_path / "precious"
    build(precious)
    if what == "a file":
        out.write_bytes(b"mine")
    elif what == "a link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.mkdir()
        (out / ("notes.txt" if what == "another folder" else "manifest.json")).write_text('{"name": "mine"}')
    before = tree(tmp_path)
    with pytest.raises(ExportError, match=r"exists and is not a sprat bundle; choose another name"):
        begin(out)
    assert tree(tmp_path) == before


def test_an_empty_folder_may_become_the_bundle(tmp_path):
    (tmp_path / "out").mkdir()
    assert existing_manifest(tmp_path / "out") is None
    build(tmp_path / "out").check()


def test_an_unwritable_path_is_an_export_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match=r"file/out\.partial: cannot be written \(Not a directory\)"):
        begin(tmp_path / "file" / "out")
