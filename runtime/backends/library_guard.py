"""``LibraryGuard``: what a library that maps files and starts threads by itself does not check."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sprat.errors import BackendError
from sprat.runtime.files.mapped_file import FileWatch

__all__ = ["LibraryGuard"]


class LibraryGuard:
    """The process that loaded a model with a library, and the files that the library maps.

    Make it before the library opens the files.

    Args:
        library: its name.
        paths: the model's files; one that does not exist is the library's to report.
    """

    def __init__(self, library: str, paths: Iterable[Path]) -> None:
        self._library = library
        self._process = os.getpid()
        self._watches = [FileWatch.of_library(path) for path in paths if path.exists()]

    def check_process(self) -> None:
        """Check that this is the process that loaded the model: a forked child has no threads of the library.

        Raises:
            BackendError: it is another; the library would wait for its threads for ever.
        """
        if os.getpid() != self._process:
            raise BackendError(
                f"the model was loaded by process {self._process} and is used in process {os.getpid()}, forked from "
                f"it, where {self._library} has no threads; load the model in the child, or use the native backend"
            )

    def check_files(self) -> None:
        """Check that what the library read are the files' bytes.

        Raises:
            ModelFileChangedError: a file was truncated or rewritten, or cannot be read.
        """
        for watch in self._watches:
            watch.check_unchanged()
