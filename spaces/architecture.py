"""Architecture: what a candidate *is*, without its weights.

A frozen value with one canonical JSON text; its id is the hash of that text, so equality, the key of
the ledger and the name of the artefacts are one and the same in every process.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from .errors import SpecError

SCHEMA = 1
_PARTS = ("backbone", "families", "training")


@final
@dataclass(frozen=True)
class Architecture:
    """Backbone, families' choices and training recipe of one candidate.

    Args:
        canonical: canonical JSON text; make it with `of` or `from_mapping`.
    """

    canonical: str

    @classmethod
    def of(
        cls,
        *,
        backbone: Mapping[str, Any],
        families: Mapping[str, Mapping[str, Any]],
        training: Mapping[str, Any],
    ) -> Architecture:
        """The architecture with these choices (plain JSON values, `backbone` with its `name`)."""
        document = {"schema": SCHEMA, "backbone": backbone, "families": families, "training": training}
        return cls(canonical_json(document, "architecture"))

    @classmethod
    def from_mapping(cls, mapping: object, path: str = "architecture") -> Architecture:
        """Read a parsed document.

        Raises:
            SpecError: if it is not an architecture of this schema.
        """
        if not isinstance(mapping, Mapping):
            raise SpecError(path, f"must be a table, but got {mapping!r}")
        if mapping.get("schema") != SCHEMA:
            raise SpecError(f"{path}.schema", f"must be {SCHEMA}, but got {mapping.get('schema')!r}")
        if set(mapping) != {"schema", *_PARTS}:
            raise SpecError(path, f"must have exactly the parts {_PARTS}, but got {sorted(map(str, mapping))}")
        for part in _PARTS:
            if not isinstance(mapping[part], Mapping):
                raise SpecError(f"{path}.{part}", f"must be a table, but got {mapping[part]!r}")
        return cls.of(**{part: mapping[part] for part in _PARTS})

    @property
    def id(self) -> str:
        """16 hexadecimal digits of content."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:16]

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        document: dict[str, Any] = json.loads(self.canonical)
        return document

    @property
    def backbone(self) -> dict[str, Any]:
        """The backbone's choices, with its `name`."""
        part: dict[str, Any] = self.to_mapping()["backbone"]
        return part

    @property
    def families(self) -> dict[str, dict[str, Any]]:
        """Family name -> its choices."""
        part: dict[str, dict[str, Any]] = self.to_mapping()["families"]
        return part

    @property
    def training(self) -> dict[str, Any]:
        """The training recipe's choices."""
        part: dict[str, Any] = self.to_mapping()["training"]
        return part


def canonical_json(value: object, path: str = "") -> str:
    """One text for equal values: sorted keys, no spaces, finite numbers only.

    Raises:
        SpecError: for values that JSON cannot hold.
    """
    return json.dumps(_canonical(value, path), sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_id(value: object) -> str:
    """16 hexadecimal digits that depend on the JSON content alone."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def _canonical(value: object, path: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item, f"{path}.{index}") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(path, f"must be finite, but got {value}")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise SpecError(path, f"must be a JSON value, but got {type(value).__name__}")
