"""The methods of ``str`` that a template may call: bounded in time and size, and keeping track of the input.

Each function takes the string first. Search from the right is done from the left on reversed strings: Python's own
takes quadratic time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sprat.runtime.chat.budget import MAX_ENTRIES, MAX_VALUE_SIZE, rendering, too_large
from sprat.runtime.chat.tracked_text import TrackedStr, as_input, concat, is_tracked, mask_of, resized, tracked

__all__ = ["TEXT_METHODS", "join", "maketrans", "repeat", "replace", "strip"]

_FEW = 64  # characters to strip; for more of them Python's search is slow
_QUERIES = (
    "count endswith find index isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable "
    "isspace istitle isupper startswith"
)
_SPACES = " \t\n\r\v\f"
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_CASES = "capitalize casefold lower swapcase title upper"


def join(separator: str, parts: Iterable[str]) -> str:
    """``separator.join(parts)``."""
    texts: list[str] = []
    size = -len(separator)
    for part in parts:
        texts.append(part)
        size += len(part) + len(separator)
        if size > MAX_VALUE_SIZE or len(texts) > MAX_ENTRIES:
            raise too_large()
    return concat(texts, separator)


def repeat(text: str, times: int) -> str:
    """``text * times``."""
    rendering.get().reserve(len(text) * max(times, 0))
    return tracked(_plain(text) * times, mask_of(text) * times)


def replace(text: str, old: str, new: str, count: int = -1) -> str:
    """``text.replace(old, new, count)``."""
    found = str.count(text, old)
    rendering.get().reserve(len(text) + found * len(new))
    if not isinstance(text, TrackedStr) and not isinstance(new, TrackedStr):
        return str.replace(text, old, new, count)
    if not old or found > MAX_ENTRIES:
        return as_input(str.replace(text, old, new, count))
    return concat(_split(text, old, count), new)


def strip(text: str, chars: str | None = None, *, left: bool = True, right: bool = True) -> str:
    """``text.strip(chars)``, on one side or both."""
    stripped = set(chars) if chars is not None else None
    if stripped is None or len(stripped) <= _FEW:
        few = None if stripped is None else "".join(stripped)
        start = len(text) - len(str.lstrip(text, few)) if left else 0
        end = len(str.rstrip(text, few)) if right else len(text)
    else:
        kept = [index for index, char in enumerate(str.__iter__(text)) if char not in stripped]
        start = (kept[0] if kept else len(text)) if left else 0
        end = (kept[-1] + 1 if kept else 0) if right else len(text)
    return _cut(text, start, max(start, end))


def _cut(text: str, start: int, end: int) -> str:
    """``text[start:end]``, for indexes inside the string."""
    return tracked(str.__getitem__(text, slice(start, end)), mask_of(text)[start:end])


def _pieces(text: str, pieces: Sequence[str], gap: int | None) -> list[str]:
    """The substrings ``pieces`` of ``text``, in order: ``gap`` characters apart, or any number of spaces."""
    if not isinstance(text, TrackedStr):
        return list(pieces)
    found, at = [], 0
    for piece in pieces:
        at = str.find(text, piece, at) if gap is None else at
        found.append(_cut(text, at, at + len(piece)))
        at += len(piece) + (gap or 0)
    return found


def _split(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    return _pieces(text, str.split(text, sep, maxsplit), None if sep is None else len(sep))


def _reserve_pieces(text: str, separators: Iterable[str], maxsplit: int = -1) -> None:
    found = sum(str.count(text, separator) for separator in separators)
    rendering.get().entries(found if maxsplit < 0 else min(found, maxsplit))


def _bounded_split(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    _reserve_pieces(text, _SPACES if sep is None else (sep,), maxsplit)
    return _split(text, sep, maxsplit)


def _rsplit(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    _reserve_pieces(text, _SPACES if sep is None else (sep,), maxsplit)
    if sep is None:
        pieces = str.rsplit(text, None, maxsplit)
    else:
        pieces = [piece[::-1] for piece in reversed(_plain(text)[::-1].split(_plain(sep)[::-1], maxsplit))]
    return _pieces(text, pieces, None if sep is None else len(sep))


def _splitlines(text: str, keepends: bool = False) -> list[str]:
    _reserve_pieces(text, _LINE_ENDS)
    whole = _pieces(text, str.splitlines(text, True), 0)
    bare = str.splitlines(text)
    return whole if keepends else [_cut(line, 0, len(kept)) for line, kept in zip(whole, bare, strict=True)]


def _partition(text: str, sep: str) -> tuple[str, str, str]:
    before, found, after = str.partition(text, sep)
    ends = len(before), len(before) + len(found)
    return _cut(text, 0, ends[0]), _cut(text, *ends), _cut(text, ends[1], ends[1] + len(after))


def _rpartition(text: str, sep: str) -> tuple[str, str, str]:
    at = _rfind(text, sep)
    if at < 0:
        return "", "", text
    return _cut(text, 0, at), sep, _cut(text, at + len(sep), len(text))


def _rfind(text: str, sub: str, start: int | None = None, end: int | None = None) -> int:
    first, last, _ = slice(start, end).indices(len(text))
    part = _plain(text)[first:last]
    found = part[::-1].find(_plain(sub)[::-1])
    valid = found >= 0 and (start is None or _clamped(start, len(text)) <= last)
    return first + len(part) - len(sub) - found if valid else -1


def _clamped(start: int, length: int) -> int:
    return start if start >= 0 else max(start + length, 0)


def _rindex(text: str, *args: Any) -> int:
    at = _rfind(text, *args)
    if at < 0:
        raise ValueError("substring not found")
    return at


def _removeprefix(text: str, prefix: str) -> str:
    return _cut(text, len(prefix), len(text)) if str.startswith(text, prefix) else text


def _removesuffix(text: str, suffix: str) -> str:
    return _cut(text, 0, len(text) - len(suffix)) if suffix and str.endswith(text, suffix) else text


def _pad(method: Callable[..., str], left: Callable[[int, int], int]) -> Callable[..., str]:
    """``center``, ``ljust`` or ``rjust``; ``left`` gives the characters on the left from all new ones and the width."""

    def padded(text: str, width: int, fillchar: str = " ") -> str:
        rendering.get().reserve(width)
        result = method(text, width, fillchar)
        n_new = len(result) - len(text)
        before = left(n_new, width)
        mask = mask_of(fillchar)
        return tracked(result, mask * before + mask_of(text) + mask * (n_new - before))

    return padded


def _zfill(text: str, width: int) -> str:
    rendering.get().reserve(width)
    return resized(str.zfill(text, width), text)


def _expandtabs(text: str, tabsize: int = 8) -> str:
    rendering.get().reserve(len(text) + str.count(text, "\t") * max(tabsize, 0))
    return resized(str.expandtabs(text, tabsize), text)


def _translate(text: str, table: Mapping[int, Any]) -> str:
    longest = max((len(new) for new in table.values() if isinstance(new, str)), default=1)
    rendering.get().reserve(len(text) * max(longest, 1))
    translated = str.translate(text, table)
    return as_input(translated) if is_tracked(table) else resized(translated, text)


def maketrans(*args: Any) -> dict[int, Any]:
    """``str.maketrans(...)``; characters that come from the input stay text, so that :func:`_translate` sees them."""
    rendering.get().entries(sum(len(arg) for arg in args))
    table: dict[int, Any] = str.maketrans(*args)
    if len(args) > 1 and is_tracked(args[1]):
        table |= {ord(old): new for old, new in zip(str.__iter__(args[0]), args[1], strict=True)}
    return table


def _plain(text: str) -> str:
    return str.__str__(text)


def _query(name: str) -> Callable[..., Any]:
    method: Callable[..., Any] = getattr(str, name)
    return method


def _case(name: str) -> Callable[..., str]:
    method: Callable[..., str] = getattr(str, name)
    return lambda text: resized(str(method(text)), text)


TEXT_METHODS: dict[str, Callable[..., Any]] = {
    **{name: _query(name) for name in _QUERIES.split()},
    **{name: _case(name) for name in _CASES.split()},
    "center": _pad(str.center, lambda new, width: new // 2 + (new & width & 1)),
    "expandtabs": _expandtabs,
    "join": join,
    "ljust": _pad(str.ljust, lambda _new, _width: 0),
    "lstrip": lambda text, chars=None: strip(text, chars, right=False),
    "partition": _partition,
    "removeprefix": _removeprefix,
    "removesuffix": _removesuffix,
    "replace": replace,
    "rfind": _rfind,
    "rindex": _rindex,
    "rjust": _pad(str.rjust, lambda new, _width: new),
    "rpartition": _rpartition,
    "rsplit": _rsplit,
    "rstrip": lambda text, chars=None: strip(text, chars, left=False),
    "split": _bounded_split,
    "splitlines": _splitlines,
    "strip": lambda text, chars=None: strip(text, chars),
    "translate": _translate,
    "zfill": _zfill,
}
