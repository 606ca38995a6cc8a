"""One target, guided by coverage: what :mod:`fuzz_run` starts where atheris is installed.

``python -m fuzz_guided TARGET SECONDS``: libFuzzer mutates the corpus and keeps what reaches new code of sprat; a
finding is raised, which ends the process with a status of 77, and is kept in ``build/fuzz/TARGET``.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["main"]

_MAX_BYTES = 1 << 18
_MAX_SECONDS = 60  # of one input, with code that is slower because it is watched
_MAX_MEMORY_MB = 6 << 10


def main(target: str, seconds: int, folder: Path) -> None:
    """Fuzz until the time is over; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["sprat"]):
        from fuzz_seeds import seeds
        from fuzz_targets import run

        corpus = folder / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        for name, data in seeds(target).items():  # imports the reader, too
            (corpus / name.replace("/", "-")).write_bytes(data)
            run(target, data)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def once(data: bytes) -> None:
        run(target, data)

    limits = (
        f"-max_total_time={seconds}",
        f"-max_len={_MAX_BYTES}",
        f"-timeout={_MAX_SECONDS}",
        f"-rss_limit_mb={_MAX_MEMORY_MB}",
    )
    atheris.Setup([sys.argv[0], str(corpus), *limits, f"-artifact_prefix={folder}/", "-print_final_stats=1"], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
