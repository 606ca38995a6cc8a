"""End tokens that the configs of a folder name and that no token is: an answer would never end with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sprat.runtime.tokenizer.hf_files import TokenizerFiles, has_tokenizer, unknown_ends

__all__ = ["end_token_warnings"]


def end_token_warnings(folder: Path, n_rows: int) -> Iterator[str]:
    """A warning for each config with such ids; none of what is no folder with a tokenizer.

    Args:
        folder: the source.
        n_rows: rows of the embedding.

    Raises:
        TokenizerError: a file is not what its name says.
    """
    if not folder.is_dir() or not has_tokenizer(folder):
        return
    files = TokenizerFiles(folder, n_rows)
    for name, config in (("config.json", files.model), ("generation_config.json", files.generation)):
        if ids := unknown_ends(config, n_rows, name):
            listed = ", ".join(map(str, ids[:3]))
            yield f"eos_token_id of {name} is no token of the {n_rows}, and ends no answer: {listed}"
