"""Cascade: a small network answers what it is sure of, a large one the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, final

from ...architecture import canonical_json
from ...backbone import Outline
from ...decisions import DECISIONS
from ...errors import SpecError
from ...exit_step import ExitStep
from ...family import AbstractFamily
from ...little import Little, LittleChoice
from ...plan import Plan
from ...scope import Scope
from ...spec import AbstractSpec, require_options

ALL_DECISIONS = tuple(member.name for member in DECISIONS)


@final
@dataclass(frozen=True)
class CascadeChoice(AbstractSpec):
    """The small network, and who decides.

    Args:
        little: a whole backbone that runs first.
        decisions: the schemes that a policy may use at run time.
    """

    little: LittleChoice
    decisions: tuple[str, ...] = ALL_DECISIONS

    def check(self) -> None:
        """Known schemes."""
        require_options("decisions", self.decisions, ALL_DECISIONS)


@final
@dataclass(frozen=True)
class Cascade(AbstractFamily):
    """An exit before the stem, whose head is a whole smaller backbone.

    The two share nothing but the normalised input: the small one learns features that suit its size, and what it
    cannot answer starts anew. Early exits may stand inside the large one; a policy then decides by one scheme
    everywhere, so both families must allow the same. Whether a small network that is not much smaller pays, the
    latency table tells.

    Args:
        little: the small network's ranges.
        decision: decision schemes that policies may use; they are searched after training on the score table.

    Source: Bolukbasi, Wang, Dekel, Saligrama, "Adaptive Neural Networks for Efficient Inference", ICML 2017; Wang,
        Luo, Crankshaw, Tumanov, Yu, Gonzalez, "IDK Cascades: Fast Deep Learning by Learning not to Overthink", UAI
        2018.
    """

    name: ClassVar[str] = "cascade"
    wing: ClassVar[str] = "sample"
    switches: ClassVar[str] = "network"
    source: ClassVar[str] = "Bolukbasi et al., ICML 2017"
    choice_type: ClassVar[type[AbstractSpec]] = CascadeChoice

    little: Little = field(default_factory=Little)
    decision: tuple[str, ...] = ALL_DECISIONS

    def check(self) -> None:
        """Known schemes."""
        require_options("decision", self.decision, ALL_DECISIONS)

    def suggest(self, scope: Scope, outline: Outline) -> CascadeChoice | None:
        """Whether at all, then the small network."""
        if self.little.size(outline) == 0 or not scope.boolean("used"):
            return None
        return CascadeChoice(self.little.suggest(scope / "little", outline), self.decision)

    def size(self, outline: Outline) -> int:
        """Small networks, and none."""
        return 1 + self.little.size(outline)

    def without_exits(self, outline: Outline) -> int:
        """One: none."""
        return 1

    def cover(self, outline: Outline) -> Iterator[CascadeChoice]:
        """Every small network."""
        for little in self.little.cover(outline):
            yield CascadeChoice(little, self.decision)

    def cuts(self, outline: Outline) -> Iterator[CascadeChoice]:
        """One of them: all cut before the stem."""
        for little in self.little.cover(outline)[:1]:
            yield CascadeChoice(little, self.decision)

    def decisions(self) -> tuple[str, ...]:
        """As given."""
        return self.decision

    def schemes(self) -> tuple[str, ...]:
        """The same."""
        return self.decision

    @classmethod
    def apply(cls, choice: CascadeChoice, plan: Plan) -> None:
        """Put an exit between the normalised input and the stem."""
        try:
            head = choice.little.build(plan.signature)
        except SpecError as error:
            raise error.under("little") from None
        schemes = tuple(member for member in DECISIONS if member.name in choice.decisions)
        token = f"{cls.name} {canonical_json(choice.little.to_mapping())}"
        plan.insert_before_stem(ExitStep(0, head, decisions=schemes, token=token, classes=plan.outline.classes))

    @classmethod
    def describe(cls, choice: CascadeChoice) -> str:
        """Such as `after residual w4 d1-1`."""
        return f"after {choice.little.describe()}"
