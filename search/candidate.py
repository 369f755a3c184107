"""What crosses the border between driver and workers: plain values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, final

from ..evaluators.operating import OperatingPoint
from ..spaces.architecture import Architecture

State = Literal["training", "reading", "finished", "failed", "blocked"]
LAST: Final = ("finished", "failed", "blocked")  # after which a worker says nothing more of a candidate


@final
@dataclass(frozen=True)
class Candidate:
    """One logical candidate; its number names it everywhere, through every retry."""

    number: int
    architecture: Architecture
    level: float
    trial: int | None

    @property
    def folder(self) -> str:
        """Where its artefacts are, below the search's folder."""
        return candidate_folder(self.number)


def candidate_folder(number: int) -> str:
    """Where a candidate's artefacts are, below the search's folder."""
    return f"candidates/{number:05d}"


@final
@dataclass(frozen=True)
class Message:
    """What a worker says after a step.

    Args:
        number: the candidate.
        state: `training` (nothing to decide), `reading` (a rung), `finished`, `failed`, or `blocked`: its folder
            cannot be written, so that nobody else could go on either.
        epoch: epochs done.
        seconds: spent on this step.
        points: operating points so far; final ones if finished.
        certified: accuracy of the final points on the certify split.
        curve: plot rows since the last message.
        summary: about a finished candidate as a whole.
        cause: of a failure, or of being blocked.
    """

    number: int
    state: State
    epoch: int
    seconds: float
    points: tuple[OperatingPoint, ...] = ()
    certified: tuple[float, ...] = ()
    curve: tuple[Mapping[str, float], ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    cause: str | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "number": self.number,
            "state": self.state,
            "epoch": self.epoch,
            "seconds": self.seconds,
            "points": [point.to_mapping() for point in self.points],
            "certified": list(self.certified),
            "curve": [dict(row) for row in self.curve],
            "summary": dict(self.summary),
            "cause": self.cause,
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Message:
        """The inverse of `to_mapping`."""
        return cls(
            number=int(mapping["number"]),
            state=mapping["state"],
            epoch=int(mapping["epoch"]),
            seconds=float(mapping["seconds"]),
            points=tuple(OperatingPoint.from_mapping(point) for point in mapping["points"]),
            certified=tuple(mapping["certified"]),
            curve=tuple(mapping["curve"]),
            summary=mapping["summary"],
            cause=mapping["cause"],
        )
