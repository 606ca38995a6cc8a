"""Options of a calibrated export: a quality level, a size, or a divergence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from sprat.errors import InputError, unknown_name
from sprat.export.quality.imatrix import check_imatrix_place
from sprat.runtime.memory.amount import parse_memory

__all__ = ["LEVELS", "QualityOptions", "Target", "TextFiles", "text_files"]

TextFiles: TypeAlias = Sequence[str | os.PathLike[str]] | str | os.PathLike[str]

LEVELS = ("none", "fast", "balanced", "best")
"""Level of calibration; ``none`` is the export without allocation and calibration."""

_LARGEST_BPW = 32.0


@dataclass(frozen=True, slots=True)
class Target:
    """The bytes to aim at; at most one field is set, and without one the file is as large as ``--quant`` makes it.

    Attributes:
        file_bytes: size of the file.
        bits_per_weight: mean over all weights, scales included.
        max_kld: largest mean KL divergence on the evaluation text.
    """

    file_bytes: int | None = None
    bits_per_weight: float | None = None
    max_kld: float | None = None


@dataclass(frozen=True, slots=True)
class QualityOptions:
    """The checked options.

    Attributes:
        level: of :data:`LEVELS`.
        target: the bytes to aim at.
        calibration: text files to calibrate with, beside a share of the packaged text; that alone if there is none.
        imatrix_out: where to write llama.cpp's imatrix of the text.
        file_format: ``gguf`` or ``onnx``.
        speed_weight: what the time of a token counts beside the divergence, see
            :func:`~sprat.export.quality.speed.allocate_for`.
        device: whose time.
    """

    level: str
    target: Target
    calibration: tuple[Path, ...] = ()
    imatrix_out: Path | None = None
    file_format: str = "gguf"
    speed_weight: float = 0.0
    device: str | None = None

    @classmethod
    def of(
        cls,
        level: str | None,
        *,
        target_size: int | str | None,
        target_bpw: float | None,
        match_size: str | os.PathLike[str] | None,
        max_kld: float | None,
        calibration: TextFiles,
        imatrix_out: str | os.PathLike[str] | None = None,
        speed_weight: float = 0.0,
        device: str | None = None,
    ) -> QualityOptions:
        """Check the options of an export.

        Raises:
            InputError: an unknown level, two targets, a target out of range, targets with ``none``, or a weight of the
                speed without a device.
        """
        given = {
            "--target-size": target_size,
            "--target-bpw": target_bpw,
            "--match-size": match_size,
            "--max-kld": max_kld,
        }
        named = [name for name, value in given.items() if value is not None]
        if len(named) > 1:
            raise InputError(f"{' and '.join(named)} contradict each other; give one of them")
        _check_speed(speed_weight, device, level, max_kld)
        measures = named or calibration or imatrix_out
        level = level or ("balanced" if measures else "fast" if speed_weight else "none")
        if level not in LEVELS:
            raise InputError(unknown_name("quality", level, LEVELS))
        texts = {"--calibration": calibration, "--imatrix-out": imatrix_out}
        named_texts = [name for name, value in texts.items() if value]
        if level == "none" and (named or named_texts):
            raise InputError(f"--quality none takes no {[*named, *named_texts][0]}; choose fast, balanced or best")
        if level == "fast" and (named_texts or max_kld is not None):
            option = [*named_texts, "--max-kld"][0]
            raise InputError(f"--quality fast measures nothing, so it takes no {option}; choose balanced or best")
        target = Target(_file_bytes(target_size, match_size), _bpw(target_bpw), _kld(max_kld))
        imatrix = None if imatrix_out is None else Path(imatrix_out)
        if imatrix is not None:
            check_imatrix_place(imatrix)
        return cls(level, target, text_files(calibration), imatrix, speed_weight=speed_weight, device=device)


def text_files(given: TextFiles) -> tuple[Path, ...]:
    """The text files that a caller names: one, or several."""
    return tuple(map(Path, [given] if isinstance(given, str | os.PathLike) else given))


def _check_speed(weight: float, device: str | None, level: str | None, max_kld: float | None) -> None:
    if not 0 <= weight < float("inf"):
        raise InputError(f"--speed-weight {weight}: expected 0 or a positive number, such as 1")
    if not weight:
        return
    if device is None:
        raise InputError("--speed-weight asks whose speed counts; name a device with --device")
    if level == "none" or max_kld is not None:
        other = "--quality none" if level == "none" else "--max-kld"
        raise InputError(f"--speed-weight chooses among formats, and {other} leaves no choice; omit one of them")


def _file_bytes(size: int | str | None, other: str | os.PathLike[str] | None) -> int | None:
    if other is not None:
        path = Path(other)
        if not path.is_file():
            raise InputError(f"--match-size {path}: is not a file; pass the file whose size to match")
        return path.stat().st_size
    return None if size is None else parse_memory(size, "target-size")


def _bpw(value: float | None) -> float | None:
    if value is not None and not 0 < value <= _LARGEST_BPW:
        raise InputError(f"--target-bpw {value}: expected above 0 and at most {_LARGEST_BPW:g} bits per weight")
    return value


def _kld(value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise InputError(f"--max-kld {value}: expected a positive number of nats, such as 0.02")
    return value
