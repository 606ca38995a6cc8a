"""Read fields of an untrusted mapping: each is checked when it is read, and all problems are reported together.

A field that is never read is a problem, too (:meth:`Fields.finish`), unless it is known to be harmless. No field that
changes the computation is overlooked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import numpy as np

from sprat.errors import ConfigError

__all__ = ["Fields"]

T = TypeVar("T")

_MAX_SIZE = 1 << 31  # of any size or count in a config: far larger than any model's


class Fields:
    """The fields of one mapping.

    Args:
        subject: name of the mapping in messages, for example ``config.json``.
        values: the mapping. Fields that are ``None`` count as absent.
        prefix: put before each field's name in messages.
        ignored: full names of unknown fields that the user declares harmless; see :meth:`finish`.
    """

    def __init__(
        self, subject: str, values: Mapping[str, Any], prefix: str = "", ignored: Collection[str] = ()
    ) -> None:
        self._subject = subject
        self._prefix = prefix
        self._values = {name: value for name, value in values.items() if value is not None}
        self._nulls = values.keys() - self._values.keys()
        self._taken: set[str] = set()
        self._ignored = ignored
        self.problems: list[str] = []
        self.unknown: dict[str, bool] = {}  # full name of each unknown field -> whether the user declares it harmless

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def is_null(self, name: str) -> bool:
        """Whether the field is there, and is ``null``."""
        return name in self._nulls

    def must_not_be_null(self, *names: str) -> None:
        """Check fields for which ``null`` is no value: transformers does not take their default for it."""
        for name in names:
            if name in self._nulls:
                self.complain(name, "is null; expected a value, or no such field where its default is meant")

    def rename(self, aliases: Mapping[str, str]) -> None:
        """Read fields under their other names: ``aliases`` maps each to the name that is read."""
        for alias, name in aliases.items():
            if alias not in self._values:
                continue
            value = self._values.pop(alias)
            if self._values.setdefault(name, value) != value:
                self.complain(name, f"and {alias} contradict each other: remove the wrong one")

    def assume(self, defaults: Mapping[str, Any]) -> None:
        """Give fields that are not in the mapping these values; ``null`` stays ``null``."""
        for name in defaults.keys() - self._nulls:
            self._values.setdefault(name, defaults[name])

    def size(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number of at least ``least``; required without a ``default``."""
        return self._take(name, default, least, lambda value: _is_int(value) and least <= value <= _MAX_SIZE, "a size")

    def number(self, name: str, default: float | None = None) -> float:
        """A positive, finite number; required without a ``default``."""
        return float(self._take(name, default, 1.0, _is_positive, "a positive number"))

    def number_or_zero(self, name: str) -> float:
        """A positive, finite number; 0 if the field is absent."""
        return float(self._take(name, 0.0, 0.0, _is_zero_or_positive, "0 or a positive number"))

    def float32(self, name: str, default: float | None = None) -> float:
        """A number that is stored as float32, as the shortest decimal that rounds to it.

        1e-06, where converting the stored value to float64 gives 9.999999974752427e-07.
        """
        return float(str(np.float32(self.number(name, default))))

    def flag(self, name: str, default: bool | None = None) -> bool:
        """A boolean; required without a ``default``."""
        return self._take(name, default, False, lambda value: isinstance(value, bool), "true or false")

    def choice(self, name: str, known: Mapping[Any, T], default: Any = None) -> T:
        """The value of ``known`` for the key in the field; required without a ``default``."""
        fallback = next(iter(known))
        found = self._take(
            name, default, fallback, lambda value: _in(value, known), f"one of {', '.join(map(repr, known))}"
        )
        return known[found]

    def must_be(self, expected: Mapping[str, Collection[Any]]) -> None:
        """Check fields that must have one of the given values if present: sprat implements no other."""
        self._taken.update(expected)
        for name, values in expected.items():
            if name in self._values and not _in(self._values[name], values):
                wanted = f"only {' or '.join(map(_short, values))}" if values else "no value of it"
                self.complain(name, f"is {_short(self._values[name])}; sprat supports {wanted}")

    def names(self) -> Collection[str]:
        """Names of the fields that are present."""
        return self._values.keys()

    def rest_must_be(self, expected: Mapping[str, Collection[Any]]) -> None:
        """Like :meth:`must_be`, for those of the fields that were not read yet."""
        self.must_be({name: values for name, values in expected.items() if name not in self._taken})

    def all_must_be(self, name: str, *expected: Any) -> None:
        """Check a list, if present: every item must be one of ``expected``."""
        self._taken.add(name)
        value = self._values.get(name, [])
        if not isinstance(value, list) or any(item not in expected for item in value):
            wanted = " or ".join(map(repr, expected))
            self.complain(name, f"is {_short(value)}; sprat supports only lists of {wanted}")

    def check(self, name: str, is_valid: Callable[[Any], bool], wanted: str) -> None:
        """Check that a field, if present, is ``wanted``."""
        self._take(name, None, None, is_valid, wanted) if name in self else self._taken.add(name)

    def leading(self, name: str, first: str, then: str, *, default: int) -> int:
        """Length of a list's leading run of ``first``, if all others are ``then``; ``default`` without a list."""
        self._taken.add(name)
        items = self._values.get(name)
        if items is None:
            return default
        n = items.count(first) if isinstance(items, list) else 0
        if not isinstance(items, list) or items != [first] * n + [then] * (len(items) - n):
            self.complain(name, f"is {_short(items)}; sprat supports only {first!r} layers before {then!r} layers")
        return n

    def ignore(self, *names: str) -> None:
        """Mark fields as read that have no effect here."""
        self._taken.update(names)

    def nested(self, name: str) -> Fields:
        """The fields of a nested mapping, empty if it is absent; its problems are reported with these."""
        empty: Mapping[str, Any] = {}
        values = self._take(name, empty, empty, lambda value: isinstance(value, Mapping), "a mapping")
        nested = Fields(self._subject, values, f"{self._prefix}{name}.", self._ignored)
        nested.problems, nested.unknown = self.problems, self.unknown
        return nested

    def complain(self, name: str, problem: str) -> None:
        """Record a problem with the field ``name``."""
        self.problems.append(f"{self._prefix}{name} {problem}")

    def finish(self, harmless: Collection[str]) -> None:
        """Record every field that was not read and is not in ``harmless`` as a problem, unless the user ignores it."""
        for name in self._values.keys() - self._taken - set(harmless):
            full_name = f"{self._prefix}{name}"
            self.unknown[full_name] = full_name in self._ignored
            if not self.unknown[full_name]:
                self.complain(name, f"is {_short(self._values[name])}, a field that sprat does not know")

    def raise_problems(self, remedy: str = "use a checkpoint of a supported architecture") -> None:
        """Raise an error if problems were recorded.

        Args:
            remedy: the end of the message.

        Raises:
            ConfigError: all problems, in one message.
        """
        if self.problems:
            listed = "; ".join(sorted(self.problems)[:_MAX_LISTED])
            if len(self.problems) > _MAX_LISTED:
                listed += f"; and {len(self.problems) - _MAX_LISTED} more"
            raise ConfigError(
                f"{self._subject}: {listed}. A field that may change the computation is never ignored: {remedy}"
            )

    def _take(self, name: str, default: T | None, stand_in: T, is_valid: Callable[[Any], bool], wanted: str) -> T:
        """The field's value; if it is missing or invalid, the problem is recorded and ``stand_in`` returned."""
        self._taken.add(name)
        if name not in self._values:
            if default is None:
                self.complain(name, f"is missing; expected {wanted}")
            return stand_in if default is None else default
        value = self._values[name]
        if not is_valid(value):
            self.complain(name, f"is {_short(value)}; expected {wanted}")
            return stand_in
        return value  # type: ignore[no-any-return]  # is_valid has checked it


_MAX_LISTED = 6


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_zero_or_positive(value: Any) -> bool:
    return _in(value, (0,)) or _is_positive(value)


def _in(value: Any, known: Collection[Any]) -> bool:
    """Whether ``value`` is in ``known``; it may be a list; 1 equals 1.0 but not ``True``."""
    return any((type(value) is type(one) or {type(value), type(one)} == {int, float}) and value == one for one in known)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
