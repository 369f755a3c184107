"""Evaluator: what a candidate is worth, told step by step so that weak ones can be stopped."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, final

from ..hardware.book import LatencyBook
from ..spaces.architecture import Architecture
from .operating import OperatingPoint
from .splits import Splits


@final
@dataclass(frozen=True)
class Task:
    """One candidate to evaluate.

    Args:
        architecture: what to build.
        seed: fixes everything random about it.
        epochs: full fidelity.
        folder: where its artefacts go; a task that was interrupted finds its checkpoint here.
        decisions: decision schemes that policies may use.
        max_points: most operating points to keep.
    """

    architecture: Architecture
    seed: int
    epochs: int
    folder: Path
    decisions: tuple[str, ...]
    max_points: int


@final
@dataclass(frozen=True)
class Reading:
    """How a candidate stands after some epochs.

    Args:
        points: operating points on the tune split as if training ended now.
        curve: numbers to plot, with their `epoch`.
    """

    points: tuple[OperatingPoint, ...]
    curve: Mapping[str, float]


@final
@dataclass(frozen=True)
class Outcome:
    """A fully trained candidate.

    Args:
        points: its operating points, chosen and scored on the tune split.
        certified: accuracy of each on the certify split, which nothing was chosen on.
        curve: the last numbers to plot.
        summary: plain JSON values about the candidate as a whole.
    """

    points: tuple[OperatingPoint, ...]
    certified: tuple[float, ...]
    curve: Mapping[str, float]
    summary: Mapping[str, Any] = field(default_factory=dict)


class AbstractSession(abc.ABC):
    """One candidate under evaluation. An interruption loses at most the epoch under way."""

    @property
    @abc.abstractmethod
    def epochs_done(self) -> int:
        """Epochs done, those before an interruption included."""

    @abc.abstractmethod
    def history(self) -> tuple[Mapping[str, float], ...]:
        """What `train` returned for the epochs before an interruption."""

    @abc.abstractmethod
    def prepare(self) -> bool:
        """Do an epoch of what must be done before the next one can be trained, such as training a teacher.

        `train` does what is left of it. Who calls this until it is false can pause in between.

        Returns:
            Whether there was anything to do.

        Raises:
            EvaluationFailed: if the candidate cannot go on.
        """

    @abc.abstractmethod
    def train(self) -> Mapping[str, float]:
        """Train one epoch; numbers to plot, with their `epoch`.

        Raises:
            EvaluationFailed: if the candidate cannot go on.
        """

    @abc.abstractmethod
    def read(self) -> Reading:
        """Take stock.

        Raises:
            EvaluationFailed: if the candidate is worth nothing.
        """

    @abc.abstractmethod
    def finish(self) -> Outcome:
        """Leave weights and score tables in the folder, choose operating points.

        Raises:
            EvaluationFailed: if the candidate is worth nothing.
        """


@dataclass(frozen=True)
class AbstractEvaluator(abc.ABC):
    """A way to find out what a candidate is worth; `name` says in every result which one it was.

    A member is one file and one line in `EVALUATORS`. `leaves_networks` says whether a finished candidate has left a
    network that the test split can be scored on.
    `instead_of` names an evaluator that gives the same, for more, of the candidates that this one `suits`.
    """

    name: ClassVar[str]
    leaves_networks: ClassVar[bool] = True
    instead_of: ClassVar[str] = ""

    def suits(self, architecture: Architecture) -> bool:
        """Whether it can tell what such a candidate is worth; by default what any is."""
        return True

    @abc.abstractmethod
    def start(self, task: Task, splits: Splits, book: LatencyBook) -> AbstractSession:
        """Begin, or continue where an interrupted session stopped.

        Raises:
            EvaluationFailed: if the candidate cannot be built.
        """
