"""Reading files that come from outside: text only, and every mistake told with its place and a remedy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn, final

from ...spaces.errors import DataError

LARGEST_WHOLE: Final = 2**63 - 1  # what a database can hold
_LARGEST_BYTES: Final = 2**30
_SHOWN: Final = 60  # characters of a wrong value that a message repeats
_PICKLE_SUFFIXES: Final = frozenset((".pkl", ".pickle", ".pck", ".joblib", ".dill", ".pt", ".pth"))
# Protocol 2 and later begin with a mark and their number, older ones with a container or the name of a class.
_PICKLE_MARKS: Final = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
_PICKLE_OPENINGS: Final = (*_PICKLE_MARKS, b"(dp", b"(lp", b"(ip", b"}q", b"]q", b")q", b"c__builtin__", b"ccopy_reg")
_ARCHIVE_OPENINGS: Final = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ")


def shown(value: object) -> str:
    """A value on one line, shortened."""
    # Spelling out a number of thousands of digits is slow, and refused by Python.
    text = f"a number of {value.bit_length()} bits" if isinstance(value, int) and abs(value) >= 2**128 else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def read_text(path: Path) -> str:
    """The text of a file, checked to be one.

    Raises:
        DataError: if it is no regular file, cannot be read, is empty, too large, compressed or not UTF-8; or if it
            is a pickle, which is never loaded.
    """
    where = str(path)
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        _refuse_pickle(where, f"named {path.suffix}")
    if path.is_dir():
        raise DataError(where, "must be a file, but is a directory; name a file in it")
    if not path.is_file():
        reason = "is no regular file" if path.exists() else "does not exist"
        raise DataError(where, f"must be a file, but {reason}; check the path")
    try:
        size = path.stat().st_size
        if size > _LARGEST_BYTES:
            raise DataError(where, f"must have at most {_LARGEST_BYTES} bytes, but has {size}; split it by device")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(where, f"cannot be read ({error.strerror}); check its permissions") from None
    return _decoded(data, where)


def _decoded(data: bytes, where: str) -> str:
    if data.startswith(_PICKLE_OPENINGS):
        _refuse_pickle(where, "a pickle by its first bytes")
    if data.startswith(_ARCHIVE_OPENINGS):
        raise DataError(where, "must be plain text, but is a compressed file or archive; unpack it first")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}:{line}", f"must be UTF-8, but byte {error.start} is not; convert the file") from None
    if not text.strip():
        raise DataError(where, "must hold a latency table, but is empty; export it again")
    return text


def _refuse_pickle(where: str, how: str) -> NoReturn:
    raise DataError(
        where,
        f"pickles are never loaded, and this file is {how}: loading one runs whatever code its author put there;"
        " convert it to JSON or CSV where it was made",
    )


def parse_json(text: str, path: str, line: int | None = None) -> object:
    """The value of one JSON text whose numbers are finite, whose names are unique, whose texts can be stored.

    Args:
        text: the JSON.
        path: the file, for messages.
        line: of the file, if the text is one line of it; None if it is the whole file.

    Raises:
        DataError: if it is anything else.
    """
    where = path if line is None else f"{path}:{line}"

    def constant(name: str) -> NoReturn:
        raise DataError(where, f"numbers must be finite, but got {name}; measure it again or remove the entry")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(where, f"names in an object must be unique, but {shown(twice)} stands twice; remove one")
        return found

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=constant)
        _check_plain(value, where)
    except DataError:
        raise
    except json.JSONDecodeError as error:
        place = f"{path}:{(line or 1) + error.lineno - 1}"
        message = (
            f"must be JSON, but column {error.colno} breaks it ({error.msg}); the file may be truncated: copy it again"
        )
        raise DataError(place, message) from None
    except (RecursionError, ValueError):
        raise DataError(
            where, "must be plain JSON, but nests too deeply or has a number of thousands of digits; export it again"
        ) from None
    return value


def _check_plain(value: object, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(where, f"numbers must be finite, but got {value}; measure it again or remove the entry")
    if isinstance(value, str) and ("\x00" in value or (not value.isascii() and _lone_surrogate(value))):
        raise DataError(
            where, f"texts must be storable, but {shown(value)} holds a null or half a character; correct it"
        )
    if isinstance(value, dict):
        for name, item in value.items():
            _check_plain(name, where)
            _check_plain(item, where)
    elif isinstance(value, list):
        for item in value:
            _check_plain(item, where)


def _lone_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


@final
class Fields:
    """The fields of one JSON object, each taken by name and checked; `end` refuses what nobody took.

    Args:
        value: what should be an object.
        where: its place, for messages.
        remedy: what to do about a mistake.

    Raises:
        DataError: if it is no object; every method raises it for its field.
    """

    def __init__(self, value: object, where: str, *, remedy: str) -> None:
        self.where = where
        self._remedy = remedy
        if not isinstance(value, dict):
            self.refuse(f"must be a JSON object, but is {shown(value)}")
        self._left: dict[str, object] = dict(value)

    def refuse(self, message: str, remedy: str = "") -> NoReturn:
        """Raise the message with place and remedy."""
        raise DataError(self.where, f"{message}; {remedy or self._remedy}")

    def take(self, name: str) -> object:
        """Any value."""
        if name not in self._left:
            self.refuse(f"field {name!r} is missing")
        return self._left.pop(name)

    def optional(self, name: str) -> object:
        """Any value; None if there is no such field."""
        return self._left.pop(name, None)

    def text(self, name: str) -> str:
        """Text that is not empty."""
        value = self.take(name)
        if not isinstance(value, str) or not value:
            self._wrong(name, "text that is not empty", value)
        return value

    def whole(self, name: str, least: int = 0) -> int:
        """A whole number of at least that, which a database can hold."""
        value = self.take(name)
        if not is_whole(value, least):
            self._wrong(name, f"a whole number from {least} to {LARGEST_WHOLE}", value)
        return value  # type: ignore[return-value]  # just checked

    def number(self, name: str, *, positive: bool = False) -> float:
        """A finite number of at least, or if `positive` above, zero."""
        value = self.take(name)
        if not is_number(value) or value < 0 or (positive and value == 0):  # type: ignore[operator]
            self._wrong(name, "a number above 0" if positive else "a number of at least 0", value)
        return float(value)  # type: ignore[arg-type]

    def flag(self, name: str, *, absent: bool | None = None) -> bool:
        """True or false; a field that may be absent stands for `absent` then."""
        value = self.take(name) if absent is None else self._left.pop(name, absent)
        if not isinstance(value, bool):
            self._wrong(name, "true or false", value)
        return value

    def items(self, name: str, holds: str, each: Callable[[object], bool]) -> list[object]:
        """A list whose items all pass; `holds` names them for the message."""
        value = self.take(name)
        if not isinstance(value, list) or not all(map(each, value)):
            self._wrong(name, f"a list of {holds}", value)
        return value

    def end(self) -> None:
        """Refuse the fields that are left."""
        if self._left:
            self.refuse(f"unknown field {shown(next(iter(self._left)))}")

    def _wrong(self, name: str, rule: str, value: object) -> NoReturn:
        self.refuse(f"field {name!r} must be {rule}, but is {shown(value)}")


def is_whole(value: object, least: int = 0) -> bool:
    """Whether it is a whole number of at least that, which a database can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST_WHOLE


def is_number(value: object) -> bool:
    """Whether it is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= 1e300


def is_text(value: object) -> bool:
    """Whether it is text."""
    return isinstance(value, str)


def is_shape(value: object) -> bool:
    """Whether it is a list of whole numbers of at least 1."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(is_whole(size, 1) for size in value)
