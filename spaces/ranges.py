"""Ranges: several questions that belong together, as a field of a family."""

from __future__ import annotations

import abc
from dataclasses import dataclass

from .backbone import Outline
from .scope import Scope
from .spec import AbstractSpec


@dataclass(frozen=True)
class AbstractRanges(AbstractSpec):
    """Options of one theme, and the choice that a search makes of them."""

    @abc.abstractmethod
    def suggest(self, scope: Scope, outline: Outline) -> AbstractSpec:
        """Ask the scope for one choice; a name always means the same range, whatever the backbone."""

    @abc.abstractmethod
    def size(self, outline: Outline) -> int:
        """How many choices `suggest` can make for this backbone; 0: none fits."""

    @abc.abstractmethod
    def listed(self) -> tuple[AbstractSpec, ...]:
        """Choices that together hold every option that changes what runs; one at least."""

    @abc.abstractmethod
    def cover(self, outline: Outline) -> tuple[AbstractSpec, ...]:
        """Those of them that fit this backbone."""
