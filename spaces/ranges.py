"""Ranges: several questions that belong together, as a field of a family."""

from __future__ import annotations

import abc
from dataclasses import dataclass

from .scope import Scope
from .spec import AbstractSpec


@dataclass(frozen=True)
class AbstractRanges(AbstractSpec):
    """Options of one theme, and the choice that a search makes of them."""

    @abc.abstractmethod
    def suggest(self, scope: Scope) -> AbstractSpec:
        """Ask the scope for one choice."""

    @abc.abstractmethod
    def size(self) -> int:
        """How many choices `suggest` can make."""

    @abc.abstractmethod
    def cover(self) -> tuple[AbstractSpec, ...]:
        """Choices that together make everything run that any choice can; one at least."""
