"""Every error that dynarch raises on purpose.

    DynarchError
     ├ SpecError(ValueError)          .path     a mistake in what the user asked for; names the place
     │  ├ UnknownNameError(KeyError)            no such family, objective, device, sampler, option
     │  └ InfeasibleError                       a constraint that nothing in the space can meet
     ├ DataError(ValueError)          .path     data that cannot be trained or scored on
     ├ ShapeError(ValueError)                   tensors or modules that do not fit together
     ├ DeviceUnavailableError                   the device asked for is not on this machine
     ├ MissingEntryError(KeyError)    .keys     the latency table has no value for these keys
     ├ StoreError                               the database cannot be opened, read or written
     │  └ NewerSchemaError                      the database was written by a newer dynarch
     ├ SearchNotFoundError(KeyError)            no search of that id in this storage
     ├ SearchBusyError                .holder   another live driver holds the search
     └ EvaluationFailed               .cause    a candidate failed; recorded as data, never fatal

A message says the rule, the value and the remedy, on one line; `path` is the place in the spec
(`space.families.early_exit.max_exits`). Candidate failures are data: only the engine sees them.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class DynarchError(Exception):
    """Root of the tree: `except DynarchError` catches all that dynarch raises on purpose."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else self.__class__.__name__


class SpecError(DynarchError, ValueError):
    """A mistake in a spec; `path` says where."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message

    def under(self, prefix: str) -> SpecError:
        """The same error seen from further out: `prefix` is put before the path."""
        return self.at(f"{prefix}.{self.path}" if prefix and self.path else prefix or self.path)

    def at(self, path: str) -> SpecError:
        """The same error with another path."""
        cls, (_, *rest) = self.__reduce__()
        return cls(path, *rest)

    def __reduce__(self) -> tuple[type[SpecError], tuple[Any, ...]]:
        return (type(self), (self.path, self.message))


class UnknownNameError(SpecError, KeyError):
    """A name that is not known; the message lists the known ones and the nearest."""

    def __init__(self, path: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        super().__init__(path, f"{name!r} is not known{hint} (known: {', '.join(names)})")
        self.name = name
        self.known = tuple(names)

    def __reduce__(self) -> tuple[type[SpecError], tuple[Any, ...]]:
        return (type(self), (self.path, self.name, self.known))


class InfeasibleError(SpecError):
    """A hard constraint that no member of the space can meet."""


class DataError(DynarchError, ValueError):
    """Data that cannot be used; `path` says which part."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.path, self.message))


class ShapeError(DynarchError, ValueError):
    """Tensors or modules that do not fit together."""


class DeviceUnavailableError(DynarchError):
    """The device asked for is absent; the message says why and what to use instead."""


class MissingEntryError(DynarchError, KeyError):
    """The latency table has no value for some keys, and nothing allows to interpolate one."""

    def __init__(self, message: str, keys: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.keys = tuple(keys)


class StoreError(DynarchError):
    """The database cannot be opened, read or written."""


class NewerSchemaError(StoreError):
    """The database was written by a newer dynarch than this one."""


class SearchNotFoundError(DynarchError, KeyError):
    """No search of that id in this storage."""


class SearchBusyError(DynarchError):
    """Another live driver holds the search."""

    def __init__(self, message: str, holder: str = "") -> None:
        super().__init__(message)
        self.holder = holder


class EvaluationFailed(DynarchError):
    """A candidate failed; `cause` is kept in the ledger and the search goes on."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause
