"""Family: one dynamic mechanism of the survey, in one file."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from .backbone import Outline
from .plan import Plan
from .scope import Scope
from .spec import AbstractSpec


@dataclass(frozen=True)
class AbstractFamily(AbstractSpec):
    """A mechanism: the ranges in which a search may vary it, and how a choice changes a network.

    A member is one file in the wing it belongs to and one line in `FAMILIES`. Its fields are the ranges;
    one concrete use is described by its `choice_type`.

    Families that `rewrites_blocks` are rivals: each puts its own step in place of blocks, so a network has at most
    one of them. The space asks which; their `suggest` then always makes a choice, or the space offers them not at all.
    So are families that fork a network: after a fork the features have another shape, and that happens once.
    """

    name: ClassVar[str]
    wing: ClassVar[str]  # "sample", "spatial" or "temporal"
    switches: ClassVar[str]  # the granularity: what one decision switches
    source: ClassVar[str]
    choice_type: ClassVar[type[AbstractSpec]]
    rewrites_blocks: ClassVar[bool] = False
    forks: ClassVar[bool] = False

    @abc.abstractmethod
    def suggest(self, scope: Scope, outline: Outline) -> Any | None:
        """Ask the scope for one choice; None means the network stays static in this respect."""

    @abc.abstractmethod
    def size(self, outline: Outline) -> int:
        """How many different choices `suggest` can make for this backbone, None counted as one; 0: it does not fit."""

    def without_exits(self, outline: Outline) -> int:
        """How many of these choices, None counted, let no input leave early; by default none or all of them."""
        return 0 if self.decisions() else self.size(outline)

    @abc.abstractmethod
    def cover(self, outline: Outline) -> Iterator[Any]:
        """Choices that together produce every part that any choice can produce; few, for the stopwatch."""

    def cuts(self, outline: Outline) -> Iterator[Any]:
        """Choices that together cut the network, or change its blocks, in every way that matters to the segments of
        other families; by default all of `cover`."""
        return self.cover(outline)

    @abc.abstractmethod
    def decisions(self) -> tuple[str, ...]:
        """The schemes of `DECISIONS` by which a policy may let inputs leave; none for families without exits."""

    @abc.abstractmethod
    def schemes(self) -> tuple[str, ...]:
        """Who decides, for tables."""

    @classmethod
    @abc.abstractmethod
    def apply(cls, choice: Any, plan: Plan) -> None:
        """Edit the plan.

        Raises:
            SpecError: if the choice does not fit the backbone; the path starts at the choice's field.
        """

    @classmethod
    @abc.abstractmethod
    def describe(cls, choice: Any) -> str:
        """A few characters for tables, such as `exits 1,3`."""
