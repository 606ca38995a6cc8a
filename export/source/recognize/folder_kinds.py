"""Folders and files that are no checkpoint, recognized and named, each with its remedy."""

from __future__ import annotations

from pathlib import Path

from sprat.errors import CheckpointError
from sprat.runtime.files.shape_checks import summarize

__all__ = ["is_pointer", "refuse_pointers", "what_folder"]

_POINTER = b"version https://git-lfs.github.com/spec/v1"  # the first line, by Git LFS's specification
_MAX_POINTER_BYTES = 1024
_SNAPSHOTS, _REPOSITORY = "snapshots", "models--"
_MARKS = {  # file or pattern -> what the folder is, and the remedy
    "adapter_config.json": "a PEFT adapter without its base model; export the base model with --lora {folder}",
    "adapter_model.safetensors": "a PEFT adapter without its base model; export the base model with --lora {folder}",
    "manifest.json": "a bundle of sprat, not a checkpoint; pass its GGUF, or the source that it was exported from",
    "model_index.json": "a pipeline of diffusers; sprat runs language models",
    "modules.json": "a model of sentence-transformers, which gives embeddings; sprat runs decoders that generate text",
    "params.json": "a checkpoint in its author's own layout; download the one in Hugging Face's layout, "
    "with config.json and model*.safetensors",
    "tf_model.h5": "a TensorFlow checkpoint; save it with transformers' save_pretrained() as safetensors",
    "flax_model.msgpack": "a Flax checkpoint; save it with transformers' save_pretrained() as safetensors",
    "zero_to_fp32.py": "a checkpoint of DeepSpeed ZeRO; run `python zero_to_fp32.py . OUT --safe_serialization`",
    "*.distcp": "a sharded checkpoint of PyTorch; save the model with save_pretrained()",
    "*.onnx": "an ONNX model; export the checkpoint that it was made from",
    "*.ckpt.index": "a TensorFlow checkpoint; download the one in safetensors",
    "*.incomplete": "an unfinished download; run the download again",
    ".cache/huggingface/download/**/*.incomplete": "an unfinished download; run `hf download` again",  # --local-dir
}


def is_pointer(path: Path) -> bool:
    """Whether the file is a pointer that Git LFS left in place of the content."""
    try:
        if not path.is_file() or path.stat().st_size > _MAX_POINTER_BYTES:
            return False
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False  # whoever reads it next reports why it cannot be read


def refuse_pointers(path: Path) -> None:
    """Refuse a file, or files directly in a folder, that are pointers of Git LFS.

    Raises:
        CheckpointError: the message names them.
    """
    found = sorted(file.name for file in (path.iterdir() if path.is_dir() else [path]) if is_pointer(file))
    if found:
        folder = path if path.is_dir() else path.parent
        raise CheckpointError(
            f"{folder}: {summarize(found, 3)}: a Git-LFS pointer in place of the content; fetch it with `git lfs pull` "
            "in the folder (after `git lfs install`), or download the model with `hf download`"
        )


def what_folder(folder: Path) -> str | None:
    """Kind of a folder without config or weights, with the remedy; ``None`` if unknown."""
    if snapshots := sorted((folder / _SNAPSHOTS).glob("*/config.json")):
        listed = summarize((str(config.parent) for config in snapshots), 3)
        return f"{folder}: the root of a model in the Hugging Face cache; pass a snapshot in it: {listed}"
    if repositories := sorted(path.name for path in folder.glob(f"{_REPOSITORY}*")):
        return f"{folder}: the Hugging Face cache itself; pass a snapshot of one model: {summarize(repositories, 3)}"
    for pattern, what in _MARKS.items():
        if any(folder.glob(pattern)):
            return f"{folder}: {what.format(folder=folder)}"
    if folder.parent.name == _SNAPSHOTS and folder.parent.parent.name.startswith(_REPOSITORY):
        name = folder.parent.parent.name.removeprefix(_REPOSITORY).replace("--", "/")
        return f"{folder}: the Hugging Face cache has only a part of {name}; complete it: hf download {name}"
    if inner := sorted(str(config.parent) for config in folder.glob("*/config.json")):
        return (
            f"{folder}: contains no checkpoint itself, but its subfolders do; pass one of them: {summarize(inner, 3)}"
        )
    return None
