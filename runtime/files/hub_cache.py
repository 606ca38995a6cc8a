"""Models in the local Hugging Face cache, found without network: ``org/name``, ``org/name@revision``.

``org/name:Q8_0``, as llama.cpp and Ollama have it, is the GGUF with that quantization in its name. The cache (https://huggingface.co/docs/huggingface_hub/guides/manage-cache)::

    ~/.cache/huggingface/hub/models--org--name/
        refs/main                     a commit
        snapshots/<commit>/…          links into blobs/
        blobs/<digest>
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from sprat.errors import InputError
from sprat.files import read_text
from sprat.runtime.files.shape_checks import summarize
from sprat.runtime.files.split_name import first_part

__all__ = ["HubReference", "gguf_models", "is_repository", "newest_snapshot"]

_PART = r"[A-Za-z0-9][\w.-]*"
_FILE, _REVISION = r"(?P<file>[^@]+\.gguf)", rf"(?P<revision>{_PART}(?:/{_PART})*)"
_QUANT = r"(?P<quant>[A-Za-z0-9][\w-]*)"
_REFERENCE = re.compile(rf"(?P<repository>{_PART}/{_PART})(?:/{_FILE}|:{_QUANT})?(?:@{_REVISION})?/?")
_SCHEME = re.compile(r"hf://|(?:https?://(?:www\.)?)?(?:huggingface|hf)\.co/")
# Of a page in a browser, whose revision is one part: a branch with a slash cannot be told from a folder.
_PAGE = re.compile(
    rf"(?P<repository>{_PART}/{_PART})/(?:tree|blob|resolve)/(?P<revision>{_PART})(?:/{_FILE})?/?(?:\?[^/]*)?"
)
_LOCAL_SUFFIXES = (".gguf", ".onnx", ".json", ".safetensors")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


class HubReference(msgspec.Struct, frozen=True):
    """A model by the name of its repository on the Hugging Face Hub."""

    repository: str
    file: str | None = None
    revision: str | None = None
    quant: str | None = None

    @classmethod
    def parse(cls, name: str) -> HubReference | None:
        """``org/name``, with ``@revision``, ``/file.gguf`` or ``:Q8_0``, also as an address; ``None`` for other text.

        Example:
            >>> HubReference.parse("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B@main").revision
            'main'
            >>> HubReference.parse("models/student.gguf")
        """
        path = _SCHEME.sub("", name, count=1)
        found = (_PAGE.fullmatch(path) if path != name else None) or _REFERENCE.fullmatch(path)
        if found is None or found["repository"].endswith(_LOCAL_SUFFIXES):
            return None
        return cls(found["repository"], found["file"], found["revision"], found.groupdict().get("quant"))

    @property
    def download_command(self) -> str:
        """The command that downloads it into the cache."""
        revision = f" --revision {self.revision}" if self.revision else ""
        quant = f" --include '*{self.quant}*.gguf'" if self.quant else ""
        return " ".join(filter(None, ["hf download", self.repository, self.file])) + revision + quant

    def find(self) -> Path:
        """The snapshot's folder in the cache, or the file in it.

        Raises:
            InputError: the cache does not have it, or only a part; the message has the command that downloads it. Or
                several files have the quantization.
        """
        folder = cache_root() / f"models--{self.repository.replace('/', '--')}"
        if not is_repository(folder):
            raise InputError(
                f"{self.repository}: no such file or folder, and not in the Hugging Face cache {folder.parent}; "
                f"sprat downloads nothing: {self.download_command}"
            )
        snapshot = newest_snapshot(folder) if self.revision is None else self._revision(folder)
        path = snapshot / self.file if self.file else self._in_quant(snapshot) if self.quant else snapshot
        if not path.exists() and not path.is_symlink():
            raise InputError(f"{path}: not in the Hugging Face cache; {self.download_command}")
        broken = [found.name for found in snapshot.rglob("*") if found.is_symlink() and not found.exists()]
        if broken:
            raise InputError(
                f"{snapshot}: the download is incomplete, {len(broken)} files are missing: {summarize(broken, 3)}; "
                f"{self.download_command}"
            )
        return path

    def _in_quant(self, snapshot: Path) -> Path:
        """The one GGUF model of the snapshot with the quantization in its name, in capitals or not."""
        models = gguf_models(snapshot)
        word = re.compile(rf"(?<![A-Z0-9]){self.quant}(?![A-Z0-9_])", re.IGNORECASE)
        found = [path for path in models if word.search(path.name)]
        if len(found) == 1:
            return found[0]
        listed = summarize((str(path.relative_to(snapshot)) for path in found or models), 8) or "no GGUF"
        what = f"has {len(found)} GGUF models in {self.quant}" if found else f"has no GGUF model in {self.quant}"
        remedy = f"name one: {self.repository}/FILE" if found else self.download_command
        raise InputError(f"{snapshot}: {what}: {listed}; {remedy}")

    def _revision(self, folder: Path) -> Path:
        """The snapshot of a branch, a tag, or the beginning of a commit."""
        assert self.revision is not None, "the caller checked"
        commits = [path for path in snapshots(folder) if path.name.startswith(self.revision)]
        if len(commits) == 1 and _COMMIT.fullmatch(self.revision):
            return commits[0]
        if (found := _snapshot_of(folder, self.revision)) is not None:
            return found
        names = [*_refs(folder), *(path.name for path in snapshots(folder))]
        raise InputError(
            f"{self.repository}@{self.revision}: not in the Hugging Face cache, which has {summarize(names)}; "
            f"{self.download_command}"
        )


def cache_root() -> Path:
    """``HF_HUB_CACHE``, ``$HF_HOME/hub``, or the default place."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if root := os.environ.get(variable):
            return Path(root).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HOME") or cache).expanduser() / "hub"


def gguf_models(folder: Path) -> list[Path]:
    """The GGUF models in ``folder``, or else in its folders, each by its first part; no vision parts."""
    files = list(folder.glob("*.gguf")) or list(folder.glob("*/*.gguf"))
    return sorted({first_part(path) for path in files if not path.name.startswith("mmproj")})


def is_repository(folder: Path) -> bool:
    """Whether ``folder`` is a model's folder in the cache."""
    return folder.name.startswith("models--") and (folder / "snapshots").is_dir()


def newest_snapshot(folder: Path) -> Path:
    """The snapshot that ``main`` refers to, else the one that was changed last.

    Raises:
        InputError: there is none.
    """
    if (found := _snapshot_of(folder, "main")) is not None:
        return found
    if not (present := snapshots(folder)):
        repository = folder.name.removeprefix("models--").replace("--", "/")
        raise InputError(f"{folder}: has no snapshot; {HubReference(repository).download_command}")
    return max(present, key=lambda path: (path.stat().st_mtime_ns, path.name))


def snapshots(folder: Path) -> list[Path]:
    """Folders of the snapshots in ``folder``, sorted by commit."""
    return sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())


def _refs(folder: Path) -> list[str]:
    root = folder / "refs"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def _snapshot_of(folder: Path, ref: str) -> Path | None:
    """The snapshot of a branch or tag, if both are in the cache."""
    if ref not in _refs(folder):
        return None
    commit = read_text(folder / "refs" / ref, errors="replace").strip()
    found = folder / "snapshots" / commit
    return found if _COMMIT.fullmatch(commit) and found.is_dir() else None
