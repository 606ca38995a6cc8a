"""Values as text for people."""

from __future__ import annotations

__all__ = ["format_number", "human_bytes", "human_seconds", "one_line", "printable"]


def human_bytes(n_bytes: float) -> str:
    """Bytes in the binary unit that leaves one to four digits.

    Example:
        >>> human_bytes(1536), human_bytes(9_019_431_321)
        ('1.5 KiB', '8.4 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(n_bytes) < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """A duration in the unit that leaves one to three digits.

    Example:
        >>> human_seconds(0.2), human_seconds(75), human_seconds(750), human_seconds(30_000)
        ('a second', '75 s', '12 min', '8.3 h')
    """
    if seconds < 1:
        return "a second"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def format_number(value: float) -> str:
    """A value with two or three significant digits.

    Example:
        >>> [format_number(value) for value in (0.0421, 8.13, 23.4, 1240.3)]
        ['0.042', '8.1', '23', '1,240']
    """
    if value >= 20:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def printable(text: str) -> str:
    r"""Text from a file for a terminal: control characters, which could move the cursor, are written as escapes.

    Example:
        >>> printable("a\x1b[2Jb\n")
        'a\\x1b[2Jb\n'
    """
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


def one_line(text: str) -> str:
    r"""As :func:`printable`, in one line: a file's name may hold a newline.

    Example:
        >>> one_line("no\nfile")
        'no\\nfile'
    """
    return printable(text).replace("\n", "\\n")
