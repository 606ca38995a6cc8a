"""Models by path, by folder and by repository in the Hugging Face cache."""

import os
from pathlib import Path

import pytest
from split_gguf import split
from tiny_checkpoint import write_checkpoint

import sprat
from sprat.app.model_reference import find_source
from sprat.errors import InputError
from sprat.export.pipeline import export

OLD, NEW = "0" * 40, "abc1234" + "1" * 33


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hub"


def add_snapshot(hub, commit, files, ref="main", repository="models--org--Name-1B"):
    """A snapshot of links into blobs, as huggingface_hub writes it."""
    snapshot = hub / repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (hub / repository / "blobs").mkdir(exist_ok=True)
    (hub / repository / "refs").mkdir(exist_ok=True)
    for file in files:
        blob = hub / repository / "blobs" / f"{commit[:4]}-{file.name}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    if ref:
        (hub / repository / "refs" / ref).write_text(commit)
    return snapshot


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "source", "qwen2")


@pytest.fixture(scope="module")
def gguf(checkpoint, tmp_path_factory):
    return export(checkpoint, tmp_path_factory.mktemp("gguf") / "out").bundle.artifact()


@pytest.fixture
def cached(hub, checkpoint):
    add_snapshot(hub, OLD, checkpoint.iterdir(), ref="v1")
    return add_snapshot(hub, NEW, checkpoint.iterdir())


def test_a_repository_is_the_snapshot_of_main(hub, cached):
    assert find_source("org/Name-1B") == cached
    assert find_source(hub / "models--org--Name-1B") == cached
    assert find_source(cached) == cached


@pytest.mark.parametrize(
    "address",
    [
        "https://huggingface.co/org/Name-1B",
        "https://www.huggingface.co/org/Name-1B/",
        "http://hf.co/org/Name-1B",
        "https://huggingface.co/org/Name-1B/tree/main",
        f"https://huggingface.co/org/Name-1B/tree/{NEW}/",
        "hf://org/Name-1B@main",
        "org/Name-1B/",
        "hf.co/org/Name-1B",
    ],
)
def test_an_address_of_a_repository_is_looked_up_too(cached, address):
    assert find_source(address) == cached


@pytest.mark.parametrize("revision", [NEW, NEW[:8], "main"])
def test_a_revision_is_a_branch_or_a_commit(cached, revision):
    assert find_source(f"org/Name-1B@{revision}") == cached
    assert find_source("org/Name-1B@v1").name == OLD


def test_without_main_the_newest_snapshot_is_taken(hub, checkpoint):
    newest = add_snapshot(hub, OLD, checkpoint.iterdir(), ref="")
    os.utime(add_snapshot(hub, NEW, checkpoint.iterdir(), ref=""), (1, 1))
    assert find_source("org/Name-1B") == newest


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HF_HUB_CACHE": "a"}, "a"),
        ({"HF_HOME": "b"}, "b/hub"),
        ({"XDG_CACHE_HOME": "c"}, "c/huggingface/hub"),
        ({"HOME": "d"}, "d/.cache/huggingface/hub"),
        ({"HF_HUB_CACHE": "a", "HF_HOME": "b"}, "a"),
    ],
)
def test_the_cache_is_where_huggingface_hub_looks(tmp_path, monkeypatch, checkpoint, variables, folder):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    snapshot = add_snapshot(tmp_path / folder, NEW, checkpoint.iterdir())
    assert find_source("org/Name-1B") == snapshot


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("org/other", "hf download org/other"),
        ("org/other@v2", "hf download org/other --revision v2"),
        ("org/other/model-Q4_K_M.gguf", "hf download org/other model-Q4_K_M.gguf"),
        ("org/other:Q8_0", "hf download org/other --include '*Q8_0*.gguf'"),
    ],
)
def test_what_is_not_in_the_cache_is_an_error_with_the_command(hub, name, command):
    with pytest.raises(InputError, match=r"not in the Hugging Face cache .*; sprat downloads nothing: ") as caught:
        find_source(name)
    assert str(caught.value).endswith(command)


def test_an_unknown_revision_lists_those_in_the_cache(cached):
    with pytest.raises(InputError, match=rf"main; v1; {OLD}; {NEW}; hf download org/Name-1B --revision v3"):
        find_source("org/Name-1B@v3")


def test_an_incomplete_download_is_an_error(cached):
    (cached / "model.safetensors").resolve().unlink()
    with pytest.raises(
        InputError, match=r"incomplete, 1 files are missing: model.safetensors; hf download org/Name-1B"
    ):
        find_source("org/Name-1B")


@pytest.mark.parametrize("name", ["models/student.gguf", "./org/name", "../org/name", "/org/name", "deepseek-v2-lite"])
def test_a_path_is_not_a_repository(hub, name):
    assert find_source(name) == Path(name)


def test_a_local_folder_comes_before_the_cache(cached, tmp_path, monkeypatch):
    (tmp_path / "org" / "Name-1B").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert os.fspath(find_source("org/Name-1B")) == "org/Name-1B"


def test_a_folder_with_one_gguf_is_that_gguf(hub, gguf, tmp_path):
    parts = split(gguf, tmp_path / "model", max_tensors=20)
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "mmproj-F16.gguf").write_bytes(b"")
    assert find_source(tmp_path / "model") == parts[0]
    snapshot = add_snapshot(hub, NEW, [gguf])
    assert find_source("org/Name-1B") == snapshot / gguf.name
    assert find_source(f"org/Name-1B/{gguf.name}") == snapshot / gguf.name
    (tmp_path / "model" / "other.gguf").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 GGUF models: model-00001-of-00003.gguf; other.gguf; give the path of one"):
        find_source(tmp_path / "model")


@pytest.fixture
def quantized(hub, gguf, tmp_path):
    """A snapshot of GGUFs in several formats, one of them in parts."""
    files = [tmp_path / f"Name-1B-{quant}.gguf" for quant in ("Q8_0", "Q4_K_M", "Q4_K", "BF16", "UD-Q4_K_XL")]
    for path in files:
        path.write_bytes(gguf.read_bytes())
    parts = split(gguf, tmp_path, max_tensors=20, stem="Name-1B-F16")
    return add_snapshot(hub, NEW, [*files, *parts])


@pytest.mark.parametrize(
    ("quant", "file"),
    [
        ("Q8_0", "Name-1B-Q8_0.gguf"),
        ("q4_k_m", "Name-1B-Q4_K_M.gguf"),
        ("Q4_K", "Name-1B-Q4_K.gguf"),
        ("F16", "Name-1B-F16-00001-of-00003.gguf"),
        ("UD-Q4_K_XL", "Name-1B-UD-Q4_K_XL.gguf"),
    ],
)
def test_a_quantization_names_a_gguf_of_a_repository(quantized, quant, file):
    """As in llama.cpp's ``-hf org/name:Q8_0`` and in Ollama's ``hf.co/org/name:Q8_0``."""
    for name in (f"org/Name-1B:{quant}", f"hf.co/org/Name-1B:{quant}", f"org/Name-1B:{quant}@main"):
        assert find_source(name) == quantized / file


def test_a_quantization_that_no_file_or_several_have_is_an_error(hub, quantized, gguf):
    with pytest.raises(InputError, match=r"no GGUF model in Q5_0: Name.*; hf download org/Name-1B --include '\*Q5_0\*"):
        find_source("org/Name-1B:Q5_0")
    (quantized / "other-Q8_0.gguf").write_bytes(gguf.read_bytes())
    listed = r"2 GGUF models in Q8_0: Name-1B-Q8_0.gguf; other-Q8_0.gguf; name one: org/Name-1B/FILE"
    with pytest.raises(InputError, match=listed):
        find_source("org/Name-1B:Q8_0")


def test_every_function_takes_a_repository(hub, checkpoint, gguf, tmp_path):
    add_snapshot(hub, NEW, checkpoint.iterdir())
    add_snapshot(hub, NEW, [gguf], repository="models--org--Name-GGUF")
    result = sprat.export("org/Name-1B", tmp_path / "out", quant="int8")
    assert result.bundle.manifest.name == "org/Name-1B"
    assert sprat.inspect("org/Name-1B").name == "org/Name-1B"
    assert sprat.inspect("org/Name-GGUF").kind == "gguf"
    assert sprat.plan("org/Name-GGUF", devices=["rpi5-8gb"])[0].runs
    assert sprat.quantize("org/Name-GGUF", tmp_path / "q8.gguf", quant="q8_0").file.path.exists()
    assert sprat.verify("org/Name-GGUF", "org/Name-1B", backends=["reference"], max_tokens=16)
    for name in ("org/Name-1B", "org/Name-GGUF"):
        with sprat.load(name) as engine:
            assert engine.generate("hello", max_tokens=1).text() is not None


def test_an_engine_takes_the_names_that_load_takes(hub, gguf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    add_snapshot(hub, NEW, [gguf])
    add_snapshot(hub, OLD, [gguf], ref="v1")
    repository, file = hub / "models--org--Name-1B", f"org/Name-1B/{gguf.name}"
    for name in ("org/Name-1B", "org/Name-1B@v1", file, repository, gguf.parent):
        with sprat.Engine.load(name, backend="reference") as engine, sprat.load(name, backend="reference") as other:
            assert engine.tokenizer.vocabulary == other.tokenizer.vocabulary
            assert engine.name == other.name
    with pytest.raises(InputError, match=r"hf download org/other$"):
        sprat.Engine.load("org/other")


def test_an_engine_names_what_runs_a_checkpoint(cached, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("org/Name-1B", cached, "demo"):
        with pytest.raises(InputError, match=rf"a checkpoint, .* sprat\.load\('{name}'\) runs it"):
            sprat.Engine.load(name)
