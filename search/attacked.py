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
from ..evaluators.splits import Part, visible_splits
from ..hardware.book import LatencyBook
from ..hardware.device import one_thread
from .front_point import FrontPoint
from .problem import Problem
from .storage import BOOK


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


def under_attack(
    problem: Problem, points: Sequence[FrontPoint], folder: Path, *, epsilon: float, inputs: int, steps: int
) -> tuple[Attacked, ...]:
    """Every point against certify inputs that were moved against its own network at its own knobs.

    Args:
        problem: what was searched.
        points: of the finished search.
        folder: of the search, with the latencies that it predicted with.
        epsilon: how far any number of an input may be moved, in units of the raw inputs.
        inputs: of the certify split, at most.
        steps: gradient steps of the attack.

    Raises:
        SpecError: if inputs cannot be moved by a distance, or the distance is not positive.
        DataError: if a candidate's files are gone.
    """
    book, seed = LatencyBook.from_mapping(json.loads((folder / BOOK).read_text())), problem.strategy.seed
    certify = visible_splits(problem.data, problem.splits, seed).certify
    x, y = certify.x[:inputs], certify.y[:inputs]
    found = []
    with one_thread():
        for point in points:
            (network, costs), setting = load_candidate(point.folder), point.policy.setting
            moved = slowed(network, x, epsilon=epsilon, seed=seed, steps=steps, setting=dict(setting))
            clean, attacked = (
                score(score_tables(network, Part(each, y), (setting,)), costs, book, point.policy, seed=seed).metrics
                for each in (x, moved)
            )
            found.append(Attacked(point, clean, attacked, epsilon))
    return tuple(found)
