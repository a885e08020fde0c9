"""What is known about the items: their names and their attributes, one column each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN = ("", "nan", "NaN", "None", "NA", "n/a")
"""Spellings of a missing value in a table."""


class InputError(ValueError):
    """A mistake in what the user gave; its message is one line that says what to do, and the scripts exit with 2."""


class OwnInputError(InputError):
    """One that of several processes only this one may have met, so that no other one can say it."""


def nearest(name: str, known: Sequence[str]) -> str:
    """Say which known names there are, the nearest first: ``did you mean 'heel'? Known: closure, heel``."""
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(sorted(known)) or 'none'}"


@dataclass(frozen=True)
class Items:
    """The items of a data set: their names and attributes.

    Args:
        names: What each item is called, shape ``(item,)``; no name comes twice.
        columns: Attribute name → one value per item, shape ``(item,)``: numbers (NaN = unknown) or text (empty =
            unknown; a set is written with ``;`` between its members, as in UT-Zappos50K).
        pixels: Gives the normalised pixels of some items, index → ``(batch, pixel)``; kernels on pixels need it.
    """

    names: NDArray[np.str_]
    columns: dict[str, NDArray] = field(default_factory=dict)
    pixels: Callable[[NDArray[np.int64]], NDArray[np.float32]] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def column(self, attribute: str) -> NDArray:
        """Give the values of an attribute, shape ``(item,)``.

        Raises:
            InputError: if there is no such attribute.
        """
        if attribute not in self.columns:
            raise InputError(
                f"Expected an attribute of the items, got {attribute!r}: {nearest(attribute, list(self.columns))}"
            )
        return self.columns[attribute]

    def numbers(self, attribute: str) -> NDArray[np.float64]:
        """Give a numeric attribute, shape ``(item,)``, NaN where unknown.

        Raises:
            InputError: naming the first item whose value is not a finite number.
        """
        values = self.column(attribute)
        if values.dtype.kind not in "fiub":
            values = np.array([self._number(attribute, i, value) for i, value in enumerate(values)])
        infinite = np.flatnonzero(np.isinf(values))
        if len(infinite):
            raise self._no_number(attribute, infinite[0], values[infinite[0]])
        return values.astype(np.float64)

    def _number(self, attribute: str, item: int, value: str) -> float:
        try:
            return float("nan") if str(value).strip() in UNKNOWN else float(value)
        except ValueError:
            raise self._no_number(attribute, item, value) from None

    def _no_number(self, attribute: str, item: int, value: object) -> InputError:
        return InputError(
            f"Expected a finite number for {attribute!r} of item {str(self.names[item])!r}, got {str(value)!r}: "
            "correct it, leave it empty (unknown), or compare this attribute as a class or a set"
        )

    def classes(self, attribute: str) -> tuple[NDArray[np.int64], list[str]]:
        """Give a categorical attribute as codes, shape ``(item,)``, −1 where unknown, and the sorted class names.

        A number is called as it is written, a whole one without a point: ``1000001``, ``0.25``.
        """
        text = [class_name(value) for value in self.column(attribute)]
        known = sorted(set(text) - set(UNKNOWN))
        code = {name: position for position, name in enumerate(known)}
        return np.array([code.get(value, -1) for value in text], dtype=np.int64), known

    def has(self, attribute: str, values: Sequence[str]) -> NDArray[np.bool_]:
        """Say which items have one of some values of a categorical attribute, shape ``(item,)``.

        Raises:
            InputError: if no item has one of the values, naming the nearest.
        """
        codes, known = self.classes(attribute)
        for value in map(str, values):
            if value not in known:
                raise InputError(f"Expected a value of {attribute!r}, got {value!r}: {nearest(value, known)}")
        return np.isin(codes, [known.index(str(value)) for value in values])

    def sets(self, attribute: str, separator: str = ";") -> tuple[NDArray[np.float32], list[str]]:
        """Give a set-valued attribute as membership, shape ``(item, member)`` of 0 and 1, and the sorted members.

        An item whose set is unknown has an all-zero row.
        """
        members = [
            {member.strip() for member in str(value).split(separator)} - set(UNKNOWN)
            for value in self.column(attribute).tolist()
        ]
        known = sorted(set().union(*members)) if members else []
        position = {name: place for place, name in enumerate(known)}
        membership = np.zeros((len(members), len(known)), dtype=np.float32)
        for row, names in enumerate(members):
            membership[row, [position[name] for name in names]] = 1.0
        return membership, known

    def positions(self, names: Sequence[str], places: Sequence[str] | None = None) -> NDArray[np.int64]:
        """Give the index of each named item.

        Args:
            names: The names to look for.
            places: Where each name stands, for the message, such as ``row 3 of pairs.csv``.

        Raises:
            InputError: naming the first name that no item has, and its place.
        """
        position = {name: index for index, name in enumerate(self.names.tolist())}
        for number, name in enumerate(names):
            if name not in position:
                place = f" in {places[number]}" if places else ""
                raise InputError(f"Expected the name of an item{place}, got {name!r}: {self._hint(name)}")
        return np.array([position[name] for name in names], dtype=np.int64)

    def _hint(self, name: str) -> str:
        close = get_close_matches(name, self.names.tolist()[:20_000], n=1, cutoff=0.5)
        return (
            f"did you mean {close[0]!r}?" if close else f"the {len(self)} items are named like {str(self.names[0])!r}"
        )


def class_name(value: Any) -> str:
    """Write a value so that different values differ."""
    whole = isinstance(value, float | np.floating) and value.is_integer()
    return str(int(value) if whole else value)


def read_names(path: str | Path) -> list[str]:
    """Read the names of items from a text file, one a line.

    Raises:
        InputError: if there is no such file, or it is empty.
    """
    try:
        names = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Expected a text file with the name of an item in each line at {path}: {error}") from error
    if not names:
        raise InputError(f"Expected names of items in {path}, one a line, but it is empty")
    return names
