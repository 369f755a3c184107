"""What a front costs when somebody sends inputs that were made to be slow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..evaluators.from_scratch import load_candidate
from ..evaluators.operating import score
from ..evaluators.score_table import score_tables
from ..evaluators.slowdown import slowed
from ..evaluators.splits import Part
from ..hardware.book import LatencyBook
from .front_point import FrontPoint


@final
@dataclass(frozen=True)
class Attacked:
    """A point of a front on inputs as they are, and on the same inputs moved against it.

    Args:
        point: of the front.
        clean, attacked: metrics, by reference: `accuracy`, `macs`, `latency_ms@device`, `latency_p95_ms@device`; the
            latencies are predicted.
        epsilon: how far any number of an input was moved at the most.
    """

    point: FrontPoint
    clean: Mapping[str, float]
    attacked: Mapping[str, float]
    epsilon: float

    @property
    def slowdown(self) -> float:
        """Mean latency under attack over that without, on the first device."""
        name = next(name for name in self.clean if name.startswith("latency_ms@"))
        return self.attacked[name] / self.clean[name]


def attack(
    points: Sequence[FrontPoint], part: Part, book_file: Path, *, epsilon: float, steps: int, seed: int
) -> tuple[Attacked, ...]:
    """Every point against inputs that were moved against its own network at its own knobs.

    Args:
        points: of a finished search.
        part: inputs and labels.
        book_file: latencies that the search predicted with.
        epsilon, steps, seed: of the attack.

    Raises:
        SpecError: if inputs cannot be moved by a distance, or the distance is not positive.
        DataError: if a candidate's files are gone.
    """
    book = LatencyBook.from_mapping(json.loads(book_file.read_text()))
    found = []
    for point in points:
        network, costs = load_candidate(point.folder)
        setting = point.policy.setting
        moved = slowed(network, part.x, epsilon=epsilon, seed=seed, steps=steps, setting=dict(setting))
        clean, attacked = (
            score(score_tables(network, Part(x, part.y), (setting,)), costs, book, point.policy, seed=seed).metrics
            for x in (part.x, moved)
        )
        found.append(Attacked(point, clean, attacked, epsilon))
    return tuple(found)
