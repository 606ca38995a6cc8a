"""Damage anywhere in a bundle is found by a check, and named: the file, and the tensors of a GGUF."""

import json
import re
import shutil

import msgspec
import pytest
from tiny_checkpoint import write_checkpoint

from sprat.errors import BundleError, InputError
from sprat.export.pipeline import export
from sprat.progress import Progress
from sprat.runtime.engine import Engine
from sprat.runtime.files.bundle import EDITABLE_FILES, Bundle
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.integrity import piece_hashes
from sprat.runtime.files.integrity.manifest_seal import seal, seal_problem
from sprat.runtime.files.model_file import bundle_of


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("check") / "tiny-Chat")


@pytest.fixture(scope="module")
def original(source, tmp_path_factory):
    """A bundle with a GGUF in two parts, an ONNX model and the tokenizer's files."""
    pytest.importorskip("onnx_ir")
    out = tmp_path_factory.mktemp("check") / "out"
    export(source, out, quant="int8", formats=("gguf", "onnx"), split="150K")
    return out


@pytest.fixture
def bundle(original, tmp_path):
    return shutil.copytree(original, tmp_path / "bundle")


def flip(path, at, n=64):
    data = bytearray(path.read_bytes())
    for index in range(at, min(at + n, len(data))):
        data[index] ^= 0x15
    path.write_bytes(data)


def names(folder):
    """The files that the manifest vouches for, and itself."""
    return sorted(path.name for path in folder.iterdir() if path.name not in EDITABLE_FILES)


def test_a_bundle_passes(bundle):
    states = []
    assert Bundle.open(bundle).check(states.append) == ()
    total = sum(file.size_bytes for file in Bundle.open(bundle).manifest.files)
    assert states[-1].done == states[-1].total == total
    assert isinstance(states[-1], Progress)


def test_damage_in_any_file_at_any_place_is_found(original, tmp_path):
    """Of every file the first bytes, the last, and two places between."""
    assert len(names(original)) > 6
    for name in names(original):
        size = (original / name).stat().st_size
        for at in sorted({max(0, min(size * part // 3, size - 1)) for part in range(4)} | {max(0, size - 64)}):
            bundle = shutil.copytree(original, tmp_path / "bundle")
            flip(bundle / name, at)
            with pytest.raises(InputError) as found:
                Bundle.open(bundle).check()
            assert name in str(found.value), (name, at)
            shutil.rmtree(bundle)


def test_any_changed_byte_of_the_manifest_is_found(bundle):
    """Also where the JSON stays valid: a digit, a letter of a warning, a space."""
    path = bundle / "manifest.json"
    text = path.read_bytes()
    for at in range(0, len(text), len(text) // 40):
        other = b"0" if text[at : at + 1] != b"0" else b"1"
        path.write_bytes(text[:at] + other + text[at + 1 :])
        with pytest.raises(BundleError):
            Bundle.open(bundle).check()
    path.write_bytes(text)
    Bundle.open(bundle).check()


def test_the_tensors_that_differ_are_named(bundle):
    part = sorted(bundle.glob("*.gguf"))[0]
    with GGUFFile.open(part) as file:
        infos = [info for info in file.tensors.values() if info.part == 0]
    for info in (infos[1], infos[-1]):
        flip(part, info.offset + info.nbytes // 2, 1)
    with pytest.raises(BundleError) as found:
        Bundle.open(bundle).check()
    assert str(found.value) == (
        f"{bundle}: '{part.name}' differs from the manifest in tensor {infos[1].name}, tensor {infos[-1].name}; "
        "copy the bundle again, or export it again"
    )


def test_a_damaged_header_of_a_gguf_is_named(bundle):
    part = sorted(bundle.glob("*.gguf"))[0]
    flip(part, 40, 4)
    with pytest.raises(BundleError, match=rf"'{re.escape(part.name)}' differs from the manifest in (its|the) header"):
        Bundle.open(bundle).check()


def test_every_damaged_file_is_named(bundle):
    for name in ("tokenizer.json", "model.onnx.data", "chat_template.jinja"):
        flip(bundle / name, 3, 1)
    with pytest.raises(BundleError) as found:
        Bundle.open(bundle).check()
    assert [name for name in names(bundle) if f"{name!r} has SHA-256" in str(found.value)] == [
        "chat_template.jinja",
        "model.onnx.data",
        "tokenizer.json",
    ]


def test_an_older_manifest_is_checked_too(bundle):
    """Without digests of tensors and of itself: by the SHA-256 of whole files."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["manifest_sha256"]
    for file in manifest["files"]:
        file.pop("tensor_digests", None)
    path.write_text(json.dumps(manifest))
    assert Bundle.open(bundle).check() == (
        "the manifest has no hash of itself, as an older sprat wrote it; export again",
    )
    part = sorted(bundle.glob("*.gguf"))[0]
    flip(part, part.stat().st_size // 2, 1)
    with pytest.raises(BundleError, match=rf"'{re.escape(part.name)}' has SHA-256"):
        Bundle.open(bundle).check()


@pytest.mark.parametrize("digests", ["", "AAAA", "no base64!", "A" * 4096])
def test_damaged_digests_are_damage(bundle, digests):
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_bytes())
    listed = next(file for file in manifest["files"] if file["name"].endswith(".gguf"))
    listed["tensor_digests"] = digests
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=re.escape(listed["name"])):
        Bundle.open(bundle).check()


def test_a_file_that_is_not_listed_is_a_note(bundle):
    (bundle / "tokenizer.model").write_bytes(b"from elsewhere")
    assert Bundle.open(bundle).check() == ("not in the manifest, and not checked: tokenizer.model",)


def test_a_file_that_cannot_be_read_is_a_problem_and_not_a_signal(bundle, monkeypatch):
    def fails(_descriptor, _buffers, at):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(piece_hashes.os, "preadv", fails)
    with pytest.raises(BundleError, match=r"'tokenizer\.json' cannot be read \(Input/output error\)"):
        Bundle.open(bundle).check()


def test_an_interrupted_check_ends(bundle):
    def stop(_state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Bundle.open(bundle).check(stop)


def test_the_manifest_stays_small(original):
    """22 characters a tensor: 1,000 tensors of DeepSeek-R1 take 22 kB."""
    files = Bundle.open(original).manifest.files
    digests = [file.tensor_digests for file in files if file.tensor_digests is not msgspec.UNSET]
    with GGUFFile.open(sorted(original.glob("*.gguf"))[0]) as file:
        n_tensors = len(file.tensors)
    assert sum(map(len, digests)) <= 22 * (n_tensors + len(digests)) + 4 * len(digests)


def test_load_checks_hashes_where_it_is_asked_to(bundle):
    part = sorted(bundle.glob("*.gguf"))[0]
    Engine.load(bundle, check="hashes").close()
    Engine.load(part, check="hashes").close()
    flip(part, part.stat().st_size - 70)
    for path in (bundle, part):
        Engine.load(path).close()
        with pytest.raises(BundleError, match="differs from the manifest in tensor"):
            Engine.load(path, check="hashes")


def test_a_file_without_a_manifest_cannot_be_checked(bundle, tmp_path):
    [part, *_] = sorted(bundle.glob("*.gguf"))
    (bundle / "manifest.json").unlink()
    assert bundle_of(part) is None
    with pytest.raises(BundleError, match=r"no manifest\.json that lists it, expected a bundle"):
        Engine.load(part, check="hashes")
    with pytest.raises(InputError, match="unknown check 'all'"):
        Engine.load(part, check="all")


def test_an_export_over_a_damaged_bundle_writes_it_again(source, tmp_path):
    out = tmp_path / "out"
    path = export(source, out, quant="int8").bundle.artifact()
    before = path.read_bytes()
    assert export(source, out, quant="int8").notes == ("the bundle exists already and is up to date",)
    for name in (path.name, "tokenizer.json"):
        flip(out / name, (out / name).stat().st_size - 80)
        [note] = export(source, out, quant="int8").notes
        assert note.startswith("the bundle was damaged and was written again: ")
        assert name in note
        Bundle.open(out).check()
    assert path.read_bytes() == before


def test_a_seal_covers_all_but_itself():
    text = seal(b'{"a": 1, "manifest_sha256": "' + b"0" * 64 + b'"}')
    assert seal_problem(text) == ""
    assert "says that it has" in seal_problem(text.replace(b"1,", b"2,"))
    assert seal_problem(b'{"a": 1}') == ""
