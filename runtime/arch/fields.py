"""Reading fields out of an untrusted mapping: each is checked as it is taken, and all problems are told at the end.

What is never taken is what nobody understood: :meth:`Fields.finish` calls that a problem too, unless the field is
known to be harmless. A field that changes the mathematics can therefore not be overlooked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import numpy as np

from sprat.errors import ConfigError

__all__ = ["Fields"]

T = TypeVar("T")

_LARGEST = 1 << 31  # of any size or count in a config: far beyond every model, small enough for all arithmetic on it


class Fields:
    """Fields of one mapping under a name for messages.

    Args:
        subject: what the mapping is, as messages call it: ``config.json``.
        values: the mapping. Fields that are ``None`` count as absent.
        prefix: put before each field's name in messages.
    """

    def __init__(self, subject: str, values: Mapping[str, Any], prefix: str = "") -> None:
        self._subject = subject
        self._prefix = prefix
        self._values = {name: value for name, value in values.items() if value is not None}
        self._taken: set[str] = set()
        self.problems: list[str] = []

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def size(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number of at least ``least``; required without a ``default``."""
        return self._take(name, default, least, lambda value: _is_int(value) and least <= value <= _LARGEST, "a size")

    def number(self, name: str, default: float | None = None) -> float:
        """A positive, finite number; required without a ``default``."""
        return float(self._take(name, default, 1.0, _is_positive, "a positive number"))

    def float32(self, name: str, default: float | None = None) -> float:
        """A number that the mapping holds as binary32, as the shortest decimal that rounds to it.

        1e-06, where widening the stored value gives 9.999999974752427e-07.
        """
        return float(str(np.float32(self.number(name, default))))

    def flag(self, name: str, default: bool | None = None) -> bool:
        """A truth value; required without a ``default``."""
        return self._take(name, default, False, lambda value: isinstance(value, bool), "true or false")

    def choice(self, name: str, known: Mapping[Any, T], default: Any = None) -> T:
        """What ``known`` holds for the field's value; required without a ``default``."""
        fallback = next(iter(known))
        found = self._take(
            name, default, fallback, lambda value: _in(value, known), f"one of {', '.join(map(repr, known))}"
        )
        return known[found]

    def must_be(self, expected: Mapping[str, Collection[Any]]) -> None:
        """Fields that, when present, hold one of the values given: anything else is mathematics missing here."""
        self._taken.update(expected)
        for name, values in expected.items():
            if name in self._values and not _in(self._values[name], values):
                wanted = " or ".join(map(_short, values))
                self.complain(name, f"is {_short(self._values[name])}; sprat supports only {wanted}")

    def rest_must_be(self, expected: Mapping[str, Collection[Any]]) -> None:
        """Like :meth:`must_be`, for those of the fields that were not taken yet."""
        self.must_be({name: values for name, values in expected.items() if name not in self._taken})

    def all_must_be(self, name: str, expected: Any) -> None:
        """A list, when present, of nothing but ``expected``."""
        self._taken.add(name)
        value = self._values.get(name, [])
        if not isinstance(value, list) or any(item != expected for item in value):
            self.complain(name, f"is {_short(value)}; sprat supports only {expected!r} throughout")

    def ignore(self, *names: str) -> None:
        """Fields that do not matter here."""
        self._taken.update(names)

    def nested(self, name: str) -> Fields:
        """The fields of a nested mapping, empty when it is absent; their problems are told with these."""
        empty: Mapping[str, Any] = {}
        values = self._take(name, empty, empty, lambda value: isinstance(value, Mapping), "a mapping")
        nested = Fields(self._subject, values, f"{self._prefix}{name}.")
        nested.problems = self.problems
        return nested

    def complain(self, name: str, problem: str) -> None:
        """Remember a problem with the field ``name``."""
        self.problems.append(f"{self._prefix}{name} {problem}")

    def finish(self, harmless: Collection[str]) -> None:
        """Remember every field that was not taken and is not in ``harmless``."""
        for name in self._values.keys() - self._taken - set(harmless):
            self.complain(name, f"is {_short(self._values[name])}, a field that sprat does not know")

    def raise_problems(self) -> None:
        """Raise what was found wrong.

        Raises:
            ConfigError: all problems, in one message.
        """
        if self.problems:
            listed = "; ".join(sorted(self.problems))
            raise ConfigError(
                f"{self._subject}: {listed}. A field that may change the mathematics is never ignored: "
                "use a checkpoint of a supported architecture"
            )

    def _take(self, name: str, default: T | None, stand_in: T, is_valid: Callable[[Any], bool], wanted: str) -> T:
        """The field's value; when that is impossible, remember why and go on with ``stand_in``."""
        self._taken.add(name)
        if name not in self._values:
            if default is None:
                self.complain(name, f"is missing; expected {wanted}")
            return stand_in if default is None else default
        value = self._values[name]
        if not is_valid(value):
            self.complain(name, f"is {_short(value)}; expected {wanted}")
            return stand_in
        return value  # type: ignore[no-any-return]  # is_valid has just seen to it


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _in(value: Any, known: Collection[Any]) -> bool:
    """Whether ``value`` is in ``known``; lists are allowed, 1 and 1.0 are the same, 1 and ``True`` are not."""
    return any((type(value) is type(one) or {type(value), type(one)} == {int, float}) and value == one for one in known)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
