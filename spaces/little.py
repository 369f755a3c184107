"""Little: a whole backbone as a part of another network, and the ranges in which a search may vary it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

from .backbone import AbstractBackbone, Backbone, Outline, Signature
from .backbones import Residual, backbone_type
from .errors import ShapeError, SpecError
from .ranges import AbstractRanges
from .scope import Scope, enumerate_points
from .spec import AbstractSpec, require


@final
@dataclass(frozen=True)
class LittleChoice(AbstractSpec):
    """One whole backbone.

    Args:
        name: its kind.
        choice: of that kind.
    """

    name: str
    choice: AbstractSpec

    def check(self) -> None:
        """A kind that there is, and a choice of it."""
        fits = isinstance(self.choice, backbone_type(self.name, "name").choice_type)
        require(fits, "choice", f"must be one of the backbone {self.name!r}, but got {self.choice!r}")

    @classmethod
    def from_mapping(cls, mapping: object, path: str = "") -> LittleChoice:
        """Read `{"name": kind, **choice}`."""
        if not isinstance(mapping, Mapping):
            raise SpecError(path, f"must be a table of options, but got {mapping!r}")
        options = dict(mapping)
        kind = backbone_type(str(options.pop("name", "")), f"{path}.name" if path else "name")
        return cls(kind.name, kind.choice_type.from_mapping(options, path))

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_mapping`."""
        return {"name": self.name, **self.choice.to_mapping()}

    def build(self, signature: Signature) -> Backbone:
        """The network, with fresh weights.

        Raises:
            SpecError: if the inputs do not suit it.
        """
        try:
            return backbone_type(self.name).build(self.choice, signature)
        except ShapeError as error:
            raise SpecError("", f"cannot take these inputs: {error}") from None

    def describe(self) -> str:
        """Such as `residual w4 d1-1`."""
        return backbone_type(self.name).describe(self.choice)


@final
@dataclass(frozen=True)
class Little(AbstractRanges):
    """Backbones to choose from.

    Args:
        backbones: kinds, each with its ranges; only those that take the inputs of the task are offered.
    """

    backbones: tuple[AbstractBackbone, ...] = (Residual(width=(4, 8), depth=(1,), stages=2),)

    def check(self) -> None:
        """At least one kind, none twice."""
        names = [member.name for member in self.backbones]
        require(len(names) > 0, "backbones", "must name at least one backbone")
        require(len(set(names)) == len(names), "backbones", f"must be distinct, but got {names}")

    @classmethod
    def from_mapping(cls, mapping: object, path: str = "") -> Little:
        """Read `{kind: ranges}`."""
        if not isinstance(mapping, Mapping):
            raise SpecError(path, f"must be a table of backbones, but got {mapping!r}")
        places = {str(name): f"{path}.{name}" if path else str(name) for name in mapping}
        return cls(tuple(backbone_type(n, p).from_mapping(mapping[n], p) for n, p in places.items()))

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_mapping`."""
        return {member.name: member.to_mapping() for member in self.backbones}

    def suggest(self, scope: Scope, outline: Outline) -> LittleChoice:
        """A kind, then what that asks."""
        fitting = self._fitting(outline)
        name = scope.categorical("backbone", tuple(member.name for member in fitting))
        member = next(member for member in fitting if member.name == name)
        return LittleChoice(name, member.suggest(scope / name))

    def size(self, outline: Outline) -> int:
        """How many choices `suggest` can make."""
        return sum(member.size() for member in self._fitting(outline))

    def listed(self) -> tuple[LittleChoice, ...]:
        """All of them: each runs something else."""
        return tuple(_all(self.backbones))

    def cover(self, outline: Outline) -> tuple[LittleChoice, ...]:
        """All that take such inputs."""
        return tuple(_all(self._fitting(outline)))

    def _fitting(self, outline: Outline) -> tuple[AbstractBackbone, ...]:
        return tuple(member for member in self.backbones if outline.kind in member.kinds)


def _all(backbones: Iterable[AbstractBackbone]) -> Iterator[LittleChoice]:
    for member in backbones:
        for _, choice in enumerate_points(member.suggest):
            yield LittleChoice(member.name, choice)
