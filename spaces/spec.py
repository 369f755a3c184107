"""Frozen values that check themselves: the base of everything a user can write in a spec.

A spec may come from Python or from a TOML or JSON document. Either way the same rules hold, the
same error is raised, and the error names the place: types are checked here once (by pydantic),
ranges in the `check` of each class.
"""

from __future__ import annotations

import abc
import dataclasses
import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, Self, get_type_hints

import pydantic
from pydantic_core import CoreSchema, core_schema

from .errors import SpecError, UnknownNameError


@dataclasses.dataclass(frozen=True)
class AbstractSpec(abc.ABC):
    """A frozen dataclass whose fields are checked when it is made.

    Raises:
        SpecError: on a wrong type, a value out of range, or a missing field; `.path` is the field.
        UnknownNameError: on an option that does not exist.
    """

    def __post_init__(self) -> None:
        fields = [field.name for field in dataclasses.fields(self)]
        model = _model(type(self))
        try:
            checked = model.model_validate({name: getattr(self, name) for name in fields})
        except pydantic.ValidationError as error:
            raise _translate(error) from None
        for name in fields:
            object.__setattr__(self, name, getattr(checked, name))
        self.check()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        """A spec nested in another keeps its own rules: pydantic alone would drop options it does not know."""
        return core_schema.no_info_plain_validator_function(cls._accept)

    @classmethod
    def _accept(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping) and not inspect.isabstract(cls):
            return cls.from_mapping(value)
        raise SpecError("", f"must be {cls.__name__}, but got {value!r}")

    @abc.abstractmethod
    def check(self) -> None:
        """Raise `SpecError(field, ...)` where a value breaks a rule that its type does not hold."""

    @classmethod
    def from_mapping(cls, mapping: object, path: str = "") -> Self:
        """Read from a parsed document; every error names its place below `path`."""
        if not isinstance(mapping, Mapping):
            raise SpecError(path, f"must be a table of options, but got {mapping!r}")
        known = {field.name: field for field in dataclasses.fields(cls) if field.init}
        for name in mapping:
            if name not in known:
                raise UnknownNameError(f"{path}.{name}" if path else str(name), str(name), known)
        for name, field in known.items():
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if required and name not in mapping:
                raise SpecError(f"{path}.{name}" if path else name, "must be given")
        try:
            return cls(**mapping)
        except SpecError as error:
            raise error.under(path) from None

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_mapping`."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def require(rule: bool, path: str, message: str) -> None:
    """Raise `SpecError(path, message)` unless the rule holds."""
    if not rule:
        raise SpecError(path, message)


def require_range(path: str, value: float, low: float, high: float) -> None:
    """Raise unless `low <= value <= high`."""
    require(low <= value <= high, path, f"must be between {low} and {high}, but got {value}")


def require_name(path: str, name: str, known: tuple[str, ...]) -> None:
    """Raise `UnknownNameError` unless the name is known."""
    if name not in known:
        raise UnknownNameError(path, name, known)


def require_options(path: str, values: tuple[Any, ...], known: tuple[str, ...] | None = None) -> None:
    """Raise unless the options to choose from are there, distinct and known."""
    require(len(values) > 0, path, "needs at least one option, but the list is empty")
    require(len(set(values)) == len(values), path, f"options must be distinct, but got {list(values)}")
    for index, value in enumerate(values if known is not None else ()):
        require_name(f"{path}.{index}", value, known or ())


def _plain(value: object) -> Any:
    if isinstance(value, AbstractSpec):
        return value.to_mapping()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


@cache
def _model(cls: type[AbstractSpec]) -> type[pydantic.BaseModel]:
    hints = get_type_hints(cls)
    fields: dict[str, Any] = {f.name: (hints[f.name], ...) for f in dataclasses.fields(cls)}
    config = pydantic.ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    return pydantic.create_model(cls.__name__, __config__=config, **fields)


def _translate(error: pydantic.ValidationError) -> SpecError:
    first = error.errors(include_url=False)[0]
    inner = first.get("ctx", {}).get("error")
    path = ".".join(str(part) for part in first["loc"])
    if isinstance(inner, SpecError):  # raised by a spec nested in this one
        return inner.under(path)
    return SpecError(path, f"{first['msg'][:1].lower()}{first['msg'][1:]}, but got {first['input']!r}")
