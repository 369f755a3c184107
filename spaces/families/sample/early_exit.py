"""Early exit: intermediate classifiers let easy inputs leave."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar, final

from ...backbone import Outline
from ...decisions import DECISIONS
from ...exit_heads import EXIT_HEADS, exit_head, require_head
from ...exit_objectives import EXIT_OBJECTIVES, exit_objective
from ...exit_step import ExitStep
from ...family import AbstractFamily
from ...plan import Plan
from ...scope import Scope
from ...spec import AbstractSpec, require, require_name, require_options, require_range
from ...views import seen, seen_token

PLACEMENTS = ("free", "even_depth", "even_macs")
GRANULARITIES = ("block", "stage")


@final
@dataclass(frozen=True)
class EarlyExitChoice(AbstractSpec):
    """Where the exits are, what their heads look like, how all is trained.

    Args:
        positions: an exit after each of these blocks (numbered from 0 through all stages), ascending.
        heads: head type of each exit.
        objective: training objective.
        decisions: the schemes that a policy may use at run time.
    """

    positions: tuple[int, ...]
    heads: tuple[str, ...]
    objective: str
    decisions: tuple[str, ...] = tuple(member.name for member in DECISIONS)

    def check(self) -> None:
        """Ascending positions, a known head for each, a known objective."""
        require(len(self.positions) > 0, "positions", "must name at least one exit")
        ascending = all(a < b for a, b in zip(self.positions, self.positions[1:], strict=False))
        require(
            ascending and self.positions[0] >= 0,
            "positions",
            f"must ascend from 0, got {list(self.positions)}",
        )
        require(
            len(self.heads) == len(self.positions),
            "heads",
            f"must have one head an exit, but got {len(self.heads)} for {len(self.positions)} exits",
        )
        for index, head in enumerate(self.heads):
            exit_head(head, f"heads.{index}")
        exit_objective(self.objective)
        require_options("decisions", self.decisions, tuple(member.name for member in DECISIONS))


@final
@dataclass(frozen=True)
class EarlyExit(AbstractFamily):
    """Intermediate classifiers; each input leaves at the first exit that is sure enough.

    Args:
        min_exits: fewest exits; 0 admits the plain, static backbone.
        max_exits: most exits.
        placement: `free` (any places), or `even_depth`, `even_macs` (only their number is searched).
        granularity: whether an exit may follow any `block`, or only the last one of a `stage`.
        decision: decision schemes that policies may use; they change no weights, so they are searched after
            training on the score table.
        heads: head types to choose from, for each exit on its own.
        training: training objectives to choose from.

    Source: Teerapittayanon et al., "BranchyNet", ICPR 2016; Han et al., "Dynamic Neural Networks: A Survey",
        TPAMI 2021, section 2.1.1.
    """

    name: ClassVar[str] = "early_exit"
    wing: ClassVar[str] = "sample"
    switches: ClassVar[str] = "network depth"
    source: ClassVar[str] = "Teerapittayanon et al., ICPR 2016"
    choice_type: ClassVar[type[AbstractSpec]] = EarlyExitChoice

    min_exits: int = 0
    max_exits: int = 3
    placement: str = "free"
    granularity: str = "block"
    decision: tuple[str, ...] = tuple(member.name for member in DECISIONS)
    heads: tuple[str, ...] = ("linear", "mlp")
    training: tuple[str, ...] = ("equal", "linear", "gradient_equilibrium")

    def check(self) -> None:
        """Known options, a possible range of exits."""
        require_range("max_exits", self.max_exits, 1, 32)
        require_range("min_exits", self.min_exits, 0, self.max_exits)
        require_name("placement", self.placement, PLACEMENTS)
        require_name("granularity", self.granularity, GRANULARITIES)
        require_options("heads", self.heads, tuple(member.name for member in EXIT_HEADS))
        require_options("training", self.training, tuple(member.name for member in EXIT_OBJECTIVES))
        require_options("decision", self.decision, tuple(member.name for member in DECISIONS))

    def suggest(self, scope: Scope, outline: Outline) -> EarlyExitChoice | None:
        """Positions, then a head for each, then the objective."""
        places, low, high = self._places(outline)
        if self.placement == "free":
            positions = _free_positions(scope / "after", places, low, high)
        else:
            # Backbones differ in places, and a name always means the same range.
            count = scope.integer(f"count_{low}_to_{high}", low, high)
            positions = _even_positions(outline, places, count, by_macs=self.placement == "even_macs")
        if not positions:
            return None
        fitting = self._fitting(outline)
        # Not every head fits every backbone, and a name always means the same range.
        heads_of = scope / ("head" if fitting == self.heads else f"head_{'_or_'.join(fitting)}")
        heads = tuple(heads_of.categorical(str(position), fitting) for position in positions)
        return EarlyExitChoice(positions, heads, scope.categorical("objective", self.training), self.decision)

    def size(self, outline: Outline) -> int:
        """Sum over the number of exits of placements x heads x objectives; no exits have neither."""
        places, low, high = self._places(outline)
        free, heads = self.placement == "free", len(self._fitting(outline))
        return sum(
            (math.comb(len(places), k) if free else 1) * (heads**k * len(self.training) if k else 1)
            for k in range(low, high + 1)
        )

    def without_exits(self, outline: Outline) -> int:
        """One, where no exit at all is admitted."""
        return int(self._places(outline)[1] == 0)

    def cover(self, outline: Outline) -> Iterator[EarlyExitChoice]:
        """Every pair of neighbouring exits once (so every segment between them), and every head at every place."""
        places, low, high = self._places(outline)
        if self.placement == "free":
            sets = list(_neighbour_sets(len(places), low, high))
            if high:
                # Full rows of exits; the last row is moved back rather than cut, or it could be no member.
                firsts = [min(first, len(places) - high) for first in range(0, len(places), high)]
                sets += [tuple(range(first, first + high)) for first in firsts]
            positions = [tuple(places[index] for index in chosen) for chosen in dict.fromkeys(sets)]
        else:
            by_macs = self.placement == "even_macs"
            counts = range(max(low, 1), high + 1)
            positions = [_even_positions(outline, places, count, by_macs=by_macs) for count in counts]
        for chosen in positions:
            for head in self._fitting(outline) if chosen else ():
                yield EarlyExitChoice(chosen, (head,) * len(chosen), self.training[0], self.decision)

    def cuts(self, outline: Outline) -> Iterator[EarlyExitChoice]:
        """Every set of places of `cover` once."""
        made = {choice.positions: choice for choice in self.cover(outline)}
        return iter(made.values())

    def decisions(self) -> tuple[str, ...]:
        """As given."""
        return self.decision

    def schemes(self) -> tuple[str, ...]:
        """The same."""
        return self.decision

    def _places(self, outline: Outline) -> tuple[tuple[int, ...], int, int]:
        """Blocks that an exit may follow (not the last one: the final head is there), fewest and most exits."""
        if not self._fitting(outline):
            return (), 0, 0
        ends = range(1, outline.blocks) if self.granularity == "block" else accumulate(outline.stages[:-1])
        places = tuple(end - 1 for end in ends)
        return places, min(self.min_exits, len(places)), min(self.max_exits, len(places))

    def _fitting(self, outline: Outline) -> tuple[str, ...]:
        """Heads that can read what the backbone shows them, wherever they stand."""
        shapes = {outline.viewed(block) for block in range(outline.blocks)}
        return tuple(name for name in self.heads if all(exit_head(name).fits(shape) for shape in shapes))

    @classmethod
    def apply(cls, choice: EarlyExitChoice, plan: Plan) -> None:
        """Put an exit after each position."""
        count = len(choice.positions)
        equilibrium = exit_objective(choice.objective).equilibrium
        schemes = tuple(member for member in DECISIONS if member.name in choice.decisions)
        for index, (position, head) in enumerate(zip(choice.positions, choice.heads, strict=True)):
            last = plan.outline.blocks - 2
            require(position <= last, f"positions.{index}", f"must be at most {last} here, but got {position}")
            shape, view = plan.outline.viewed(position), plan.backbone.view
            require_head(head, shape, f"heads.{index}")
            built = seen(view, exit_head(head).build(shape, plan.outline.classes))
            remaining = count - index + 1  # this exit, the later ones and the final head
            step = ExitStep(
                index,
                built,
                decisions=schemes,
                branch_gradient=1 / remaining if equilibrium else 1.0,
                trunk_gradient=(remaining - 1) / remaining if equilibrium else 1.0,
                token=seen_token(view, head),
                classes=plan.outline.classes,
            )
            plan.insert_after(position, step)

    @classmethod
    def describe(cls, choice: EarlyExitChoice) -> str:
        """Such as `exits 1,3 linear+mlp equal`."""
        heads = choice.heads[0] if len(set(choice.heads)) == 1 else "+".join(choice.heads)
        return f"exits {','.join(map(str, choice.positions))} {heads} {choice.objective}"


def _free_positions(scope: Scope, places: tuple[int, ...], low: int, high: int) -> tuple[int, ...]:
    """A subset of the places: one question a place, none once the answer is settled.

    The places are asked about from the middle outwards, so that a small `high` does not favour early ones.
    Every subset is reached by exactly one row of answers.
    """
    chosen: list[int] = []
    for asked, index in enumerate(_spread_order(len(places))):
        missing = low - len(chosen)
        if len(chosen) == high:
            break
        if missing >= len(places) - asked or scope.boolean(str(places[index])):
            chosen.append(places[index])
    return tuple(sorted(chosen))


def _neighbour_sets(places: int, low: int, high: int) -> Iterator[tuple[int, ...]]:
    """For every two places (or ends) that can be neighbours among `low` to `high` exits, one such set."""
    for left in range(-1, places):
        for right in range(left + 1, places + 1):
            chosen = [index for index in (left, right) if 0 <= index < places]
            outside = [index for index in range(places) if index < left or index > right]
            missing = max(low - len(chosen), 0)
            if len(chosen) <= high and missing <= len(outside):
                yield tuple(sorted(chosen + outside[:missing]))


def _spread_order(size: int) -> list[int]:
    """0 .. size-1, each next one in the middle of the widest gap left (the lowest of equals)."""
    order: list[int] = []
    while len(order) < size:
        gaps = pairwise(sorted((-1, *order, size)))
        left, right = max(gaps, key=lambda gap: (gap[1] - gap[0], -gap[0]))
        order.append((left + right) // 2)
    return order


def _even_positions(outline: Outline, places: tuple[int, ...], count: int, *, by_macs: bool) -> tuple[int, ...]:
    """`count` distinct places that split depth or work into equal parts as nearly as blocks allow."""
    work = list(accumulate(outline.block_macs if by_macs else (1,) * outline.blocks))
    chosen: list[int] = []
    for index in range(count):
        target = work[-1] * (index + 1) / (count + 1)
        # Only places after the last one chosen, with room for the exits to come.
        open_places = places[(places.index(chosen[-1]) + 1 if chosen else 0) : len(places) - (count - index - 1)]
        chosen.append(min(open_places, key=lambda place: (abs(work[place] - target), place)))
    return tuple(chosen)
