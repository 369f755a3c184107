"""Temporal exit: an input leaves as soon as what it has shown so far is enough, and its rest is never read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from ...backbone import Outline
from ...decisions import DECISIONS
from ...exit_objectives import EXIT_OBJECTIVES, exit_objective
from ...exit_step import ExitStep
from ...family import AbstractFamily
from ...gated import PLACEMENTS, check_blocks, placed, require_blocks
from ...plan import Plan
from ...scope import Scope
from ...spec import AbstractSpec, require, require_options

ALL_DECISIONS = tuple(member.name for member in DECISIONS)
OBJECTIVES = tuple(member.name for member in EXIT_OBJECTIVES if not member.equilibrium)


@final
@dataclass(frozen=True)
class TemporalExitChoice(AbstractSpec):
    """Behind which chunks inputs may leave, and how that is trained.

    Args:
        blocks: numbers of the chunks, ascending.
        objective: training objective.
        decisions: the schemes that a policy may use at run time.
    """

    blocks: tuple[int, ...]
    objective: str
    decisions: tuple[str, ...] = ALL_DECISIONS

    def check(self) -> None:
        """Chunks in order, a known objective that suits a shared head, known schemes."""
        check_blocks(self.blocks)
        exit_objective(self.objective)
        suits = "cannot scale the gradients of a head that all exits share"
        require(self.objective in OBJECTIVES, "objective", f"{self.objective!r} {suits}; use {', '.join(OBJECTIVES)}")
        require_options("decisions", self.decisions, ALL_DECISIONS)


@final
@dataclass(frozen=True)
class TemporalExit(AbstractFamily):
    """The network's own head, shared by all exits, answers after every chunk; each input stops reading when it is sure.

    Early exits on such a backbone have heads of their own, and may stand beside these.

    Args:
        placement: behind which of the chunks, but the last: `all`, `alternate`, `late`; to choose from.
        training: training objectives to choose from; those that scale gradients head by head do not suit.
        decision: decision schemes that policies may use.

    Source: Ghodrati, Ehteshami Bejnordi, Habibian, "FrameExit: Conditional Early Exiting for Efficient Video
        Recognition", CVPR 2021. There gates decide; here the schemes of all exits do.
    """

    name: ClassVar[str] = "temporal_exit"
    wing: ClassVar[str] = "temporal"
    switches: ClassVar[str] = "rest of the input"
    source: ClassVar[str] = "Ghodrati et al., CVPR 2021"
    choice_type: ClassVar[type[AbstractSpec]] = TemporalExitChoice

    placement: tuple[str, ...] = PLACEMENTS
    training: tuple[str, ...] = ("equal", "linear")
    decision: tuple[str, ...] = ALL_DECISIONS

    def check(self) -> None:
        """Known options."""
        require_options("placement", self.placement, PLACEMENTS)
        require_options("training", self.training, OBJECTIVES)
        require_options("decision", self.decision, ALL_DECISIONS)

    def suggest(self, scope: Scope, outline: Outline) -> TemporalExitChoice | None:
        """Whether at all, where, the objective."""
        options = self._options(outline)
        if not options or not scope.boolean("used"):
            return None
        # Backbones differ in how many places there are, and a name always means the same range.
        chosen = scope.categorical(f"placement_of_{len(outline.chunks) - 1}", tuple(options))
        return TemporalExitChoice(options[chosen], scope.categorical("objective", self.training), self.decision)

    def size(self, outline: Outline) -> int:
        """Placements x objectives, and none."""
        return 1 + len(self._options(outline)) * len(self.training)

    def without_exits(self, outline: Outline) -> int:
        """One: none."""
        return 1

    def cover(self, outline: Outline) -> Iterator[TemporalExitChoice]:
        """Every placement; objectives do not change what runs."""
        for blocks in self._options(outline).values():
            yield TemporalExitChoice(blocks, self.training[0], self.decision)

    def decisions(self) -> tuple[str, ...]:
        """As given."""
        return self.decision

    def schemes(self) -> tuple[str, ...]:
        """The same."""
        return self.decision

    def _options(self, outline: Outline) -> dict[str, tuple[int, ...]]:
        return placed(outline.chunks[:-1], self.placement)

    @classmethod
    def apply(cls, choice: TemporalExitChoice, plan: Plan) -> None:
        """Put an exit with the backbone's head behind each chunk."""
        require_blocks(choice.blocks, plan.outline.chunks[:-1], "reads a chunk with another behind it")
        schemes = tuple(member for member in DECISIONS if member.name in choice.decisions)
        for index, block in enumerate(choice.blocks):
            head = nn.Sequential(plan.backbone.head)  # one object an exit, around what they share
            token, classes = (cls.name, id(plan.backbone.head)), plan.outline.classes
            plan.insert_after(block, ExitStep(index, head, decisions=schemes, token=token, classes=classes))

    @classmethod
    def describe(cls, choice: TemporalExitChoice) -> str:
        """Such as `leaves after 0,1,2 equal`."""
        return f"leaves after {','.join(map(str, choice.blocks))} {choice.objective}"
