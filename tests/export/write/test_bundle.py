import contextlib
import errno
import fcntl
import os
import shutil
from pathlib import Path

import msgspec
import pytest

from sprat.errors import ExportError, InputError
from sprat.export.write import own_folder, publish
from sprat.export.write.bundle import BundleFolder, existing_manifest, remove_leftovers
from sprat.export.write.errors import output_path
from sprat.export.write.journal import is_journal
from sprat.export.write.own_folder import scratch_folder
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


def build(out, *, data=b"weights", name="student", check=lambda _: None):
    with BundleFolder.lock(out) as folder:
        files = (folder.add("model.gguf", data), folder.add("tokenizer.json", b"{}"))
        return folder.finish(manifest(*files, name=name), check)


def interrupt(out, **files):
    """Add ``files`` and stop, as a process that is killed."""
    with BundleFolder.lock(out) as folder:
        for name, data in files.items():
            folder.add(name.replace("_", "."), data)


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_bundle_appears_only_when_complete(tmp_path):
    out = tmp_path / "deep" / "out"
    interrupt(out, model_gguf=b"weights")
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
    interrupt(tmp_path / "out", model_gguf_partial=b"before", model_gguf_journal=b"before", other_gguf=b"before")
    with BundleFolder.lock(tmp_path / "out") as second:
        assert (second.path / "model.gguf.partial").read_bytes() == b"before"
    build(tmp_path / "out")
    assert tree(tmp_path / "out") == ["manifest.json", "model.gguf", "tokenizer.json"]


def test_a_bundle_is_kept_until_its_replacement_is_complete(tmp_path):
    build(tmp_path / "out")
    interrupt(tmp_path / "out", model_gguf=b"newer")
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
        BundleFolder.lock(out)
    assert tree(tmp_path) == before


def test_an_empty_folder_may_become_the_bundle(tmp_path):
    (tmp_path / "out").mkdir()
    assert existing_manifest(tmp_path / "out") is None
    build(tmp_path / "out").check()


def test_an_unwritable_path_is_an_export_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match=r"file/out\.partial: cannot be written \(Not a directory\)"):
        BundleFolder.lock(tmp_path / "file" / "out")


def strange_partial(out, what):
    """OUT.partial as a stranger made it."""
    partial = out.with_name("out.partial")
    victim = out.with_name("victim")
    victim.mkdir()
    (victim / "notes.txt").write_text("mine")
    if what == "a file":
        partial.write_text("mine")
    elif what == "a link to a folder":
        partial.symlink_to(victim)
    elif what == "a broken link":
        partial.symlink_to(out.with_name("nowhere"))
    else:
        partial.mkdir()
        marker = partial / ".sprat-export"
        {
            "a folder with a file": lambda: (partial / "notes.txt").write_text("mine"),
            "a folder with a folder": (partial / "photos").mkdir,
            "a marker that is a link": lambda: marker.symlink_to(victim / "notes.txt"),
            "a marker with other text": lambda: marker.write_text("mine"),
            "a marker that is a folder": marker.mkdir,
            "a marker that is a pipe": lambda: os.mkfifo(marker),
        }[what]()


@pytest.mark.parametrize(
    "what",
    [
        "a file",
        "a link to a folder",
        "a broken link",
        "a folder with a file",
        "a folder with a folder",
        "a marker that is a link",
        "a marker with other text",
        "a marker that is a folder",
        "a marker that is a pipe",
    ],
)
def test_a_partial_folder_of_someone_else_is_never_touched(tmp_path, what):
    strange_partial(tmp_path / "out", what)
    before = tree(tmp_path)
    with pytest.raises(ExportError, match=r"out\.partial: exists and was not made by sprat export.*move it away"):
        BundleFolder.lock(tmp_path / "out")
    assert tree(tmp_path) == before
    assert (tmp_path / "victim" / "notes.txt").read_text() == "mine"


def test_an_empty_partial_folder_is_used(tmp_path):
    (tmp_path / "out.partial").mkdir()
    build(tmp_path / "out").check()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("make", ["symlink", "hard link", "folder link", "pipe"])
def test_links_in_the_own_folder_are_replaced_and_not_followed(tmp_path, make):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "photos").mkdir()
    interrupt(tmp_path / "out", model_gguf=b"before")
    name = tmp_path / "out.partial" / "bundle" / "tokenizer.json"
    if make == "symlink":
        name.symlink_to(victim)
    elif make == "hard link":
        name.hardlink_to(victim)
    elif make == "folder link":
        name.parent.joinpath("extra").symlink_to(tmp_path / "photos")
    else:
        os.mkfifo(name)
    with BundleFolder.lock(tmp_path / "out") as folder:
        files = [folder.add(each, b"{}") for each in ("model.gguf", "tokenizer.json", "extra/one.jinja")]
        folder.finish(manifest(*files)).check()
    assert victim.read_text() == "mine"
    assert not list((tmp_path / "photos").iterdir())
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_a_second_process_cannot_build_the_same_bundle(tmp_path):
    with (
        BundleFolder.lock(tmp_path / "out"),
        pytest.raises(ExportError, match="another process is writing this output"),
    ):
        BundleFolder.lock(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_lock_is_of_the_folder_that_exists(tmp_path, monkeypatch):
    """Between opening the marker and locking it, another process finishes and deletes the folder."""
    flock, seen = fcntl.flock, []

    def late(descriptor, flags):
        if not seen:
            shutil.rmtree(tmp_path / "out.partial")
        seen.append(descriptor)
        return flock(descriptor, flags)

    monkeypatch.setattr(fcntl, "flock", late)
    build(tmp_path / "out").check()
    assert len(seen) == 2


def test_a_bundle_that_fails_its_check_is_not_published(tmp_path):
    build(tmp_path / "out")

    def fail(folder):
        assert (folder / "manifest.json").exists()
        raise ExportError("not readable")

    with pytest.raises(ExportError, match="not readable"):
        build(tmp_path / "out", name="newer", check=fail)
    assert Bundle.open(tmp_path / "out").manifest.name == "student"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def no_exchange(monkeypatch):
    """A system that cannot exchange two names."""
    monkeypatch.setattr(publish, "_exchange", lambda *_: False)


def fail_second_rename(monkeypatch):
    replace, calls = Path.replace, []

    def fails(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails)


def test_if_the_second_rename_fails_the_bundle_is_put_back(tmp_path, monkeypatch, no_exchange):
    build(tmp_path / "out")
    with monkeypatch.context() as patch:
        fail_second_rename(patch)
        with pytest.raises(ExportError, match="Input/output error"):
            build(tmp_path / "out", name="newer")
    assert Bundle.open(tmp_path / "out").manifest.name == "student"
    build(tmp_path / "out", name="newest")
    assert Bundle.open(tmp_path / "out").manifest.name == "newest"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_killed_between_the_renames_the_bundle_is_put_back_by_the_next_run(tmp_path):
    build(tmp_path / "out")
    interrupt(tmp_path / "out", model_gguf=b"newer")
    (tmp_path / "out").replace(tmp_path / "out.partial" / "replaced")
    with BundleFolder.lock(tmp_path / "out"):
        Bundle.open(tmp_path / "out").check()


def test_killed_while_the_replaced_bundle_is_deleted_the_next_run_replaces_again(tmp_path):
    build(tmp_path / "out")
    interrupt(tmp_path / "out", model_gguf=b"newer")
    replaced = tmp_path / "out.partial" / "replaced"
    replaced.mkdir()
    (replaced / "tokenizer.json").write_text("{}")
    build(tmp_path / "out", name="newest")
    assert Bundle.open(tmp_path / "out").manifest.name == "newest"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_called_replaced_beside_the_bundle_is_a_strangers(tmp_path):
    build(tmp_path / "out")
    mine = tmp_path / "out.replaced"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    build(tmp_path / "out", name="newer")
    assert tree(mine) == ["notes.txt"]


def test_a_link_to_a_bundle_is_replaced_and_its_target_is_kept(tmp_path):
    build(tmp_path / "target")
    (tmp_path / "out").symlink_to(tmp_path / "target")
    build(tmp_path / "out", name="newer")
    assert Bundle.open(tmp_path / "target").manifest.name == "student"
    assert Bundle.open(tmp_path / "out").manifest.name == "newer"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "target"]


def test_leftovers_of_a_finished_export_are_removed_and_unfinished_work_is_kept(tmp_path):
    build(tmp_path / "out")
    interrupt(tmp_path / "out", model_gguf=b"newer")
    remove_leftovers(tmp_path / "out")
    assert (tmp_path / "out.partial" / "bundle" / "model.gguf").exists()
    shutil.rmtree(tmp_path / "out.partial" / "bundle")
    remove_leftovers(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_leftovers_of_someone_else_are_left(tmp_path):
    build(tmp_path / "out")
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "notes.txt").write_text("mine")
    remove_leftovers(tmp_path / "out")
    assert tree(tmp_path / "out.partial") == ["notes.txt"]


def test_a_scratch_folder_is_published_or_deleted(tmp_path):
    with scratch_folder(tmp_path / "out") as folder:
        (folder / "model.onnx").write_text("graph")
        folder.replace(tmp_path / "out")
    with contextlib.suppress(KeyError), scratch_folder(tmp_path / "other") as folder:
        (folder / "model.onnx").write_text("graph")
        raise KeyError
    assert tree(tmp_path) == ["out", "out/model.onnx"]


def test_a_scratch_folder_of_someone_else_is_never_touched(tmp_path):
    strange_partial(tmp_path / "out", "a folder with a file")
    with pytest.raises(ExportError, match="was not made by sprat export"), scratch_folder(tmp_path / "out"):
        pytest.fail("it was taken")
    assert tree(tmp_path / "out.partial") == ["notes.txt"]


@pytest.mark.parametrize("out", ["", ".", "..", "/", "a\0b", "a/.."])
def test_an_output_without_a_name_is_an_input_error(out):
    with pytest.raises(InputError, match="expected the name of a new file or folder"):
        output_path(out)


def test_a_leftover_that_cannot_be_deleted_is_not_published(tmp_path, monkeypatch):
    interrupt(tmp_path / "out", other_gguf=b"before")
    unlink = os.unlink

    def fails(name, **options):
        if name == "other.gguf":
            raise OSError(errno.EIO, "Input/output error")
        unlink(name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fails)
        with pytest.raises(ExportError, match="Input/output error"):
            build(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    build(tmp_path / "out")
    assert tree(tmp_path) == ["out", "out/manifest.json", "out/model.gguf", "out/tokenizer.json"]


def test_a_marker_and_a_journal_that_a_full_disk_cut_short_are_sprats_own(tmp_path):
    partial = tmp_path / "out.partial"
    partial.mkdir()
    for n_bytes in (0, 1, len(own_folder._TEXT)):
        (partial / own_folder._MARKER).write_bytes(own_folder._TEXT[:n_bytes])
        own_folder.OwnFolder.lock(partial).close()
    (partial / own_folder._MARKER).write_bytes(b"a stranger's")
    with pytest.raises(ExportError, match="was not made by sprat"):
        own_folder.OwnFolder.lock(partial)
    for text, is_ours in ((b"", True), (b"{", True), (b'{"layout":"x', True), (b"mine", False)):
        (tmp_path / "journal").write_bytes(text)
        assert is_journal(tmp_path / "journal") == is_ours
