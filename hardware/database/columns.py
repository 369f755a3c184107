"""What the tables of every component share: names of constraints, column types, and values fit for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Double, Integer, Text

from ...spaces.errors import StoreError

CONSTRAINT_NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
JsonMap = dict[str, Any]
JsonList = list[Any]
COLUMN_TYPES: Final = {
    str: Text(),
    float: Double(),
    int: BigInteger(),
    JsonMap: JSON(none_as_null=True),
    JsonList: JSON(none_as_null=True),
}
# SQLite counts by itself only in a column of exactly this type.
COUNTED: Final = BigInteger().with_variant(Integer(), "sqlite")


def plain_json(value: object, path: str, *, nan_as_none: bool = False) -> Any:
    """The same value in the types that JSON has, with finite numbers only.

    Args:
        value: None, text, numbers, lists and maps, inside each other.
        path: where the value stands, for the message.
        nan_as_none: write None for NaN and infinities instead of refusing them.

    Raises:
        StoreError: if something in it has no place in JSON; names the path to it.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        if nan_as_none:
            return None
        raise StoreError(f"{path}: a stored number must be finite, but got {value}; use None for an unknown one")
    if isinstance(value, Mapping):
        return {
            _json_key(key, path): plain_json(item, f"{path}.{key}", nan_as_none=nan_as_none)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain_json(item, f"{path}[{index}]", nan_as_none=nan_as_none) for index, item in enumerate(value)]
    raise StoreError(
        f"{path}: only None, text, numbers, lists and maps can be stored, but got {type(value).__name__};"
        " convert it first"
    )


def _json_key(key: object, path: str) -> str:
    if isinstance(key, str):
        return key
    raise StoreError(f"{path}: the keys of a stored map must be text, but got {key!r}; convert it with str()")


def plain_text(text: str) -> str:
    """The same text without what a database cannot hold: null characters and halves of surrogate pairs."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
