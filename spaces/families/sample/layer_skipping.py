"""Layer skipping: residual blocks run only for inputs that need them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import nn

from ...backbone import Outline
from ...choice_step import Branch
from ...family import AbstractFamily
from ...gated import PLACEMENTS, check_blocks, placed, put_choices, require_blocks
from ...gating import Gating, GatingChoice
from ...plan import Plan
from ...resource import Resource, ResourceChoice
from ...scope import Scope
from ...spec import AbstractSpec, require_options


@final
@dataclass(frozen=True)
class LayerSkippingChoice(AbstractSpec):
    """Which blocks may be skipped, who decides, and how much may be spent.

    Args:
        blocks: numbers of the blocks, ascending.
        gating: who decides.
        target: what training charges for.
    """

    blocks: tuple[int, ...]
    gating: GatingChoice
    target: ResourceChoice

    def check(self) -> None:
        """At least one block, in order."""
        check_blocks(self.blocks)


@final
@dataclass(frozen=True)
class LayerSkipping(AbstractFamily):
    """A gate before a residual block runs it or hands its inputs on.

    Args:
        placement: which of the blocks that keep the shape of their features may be skipped: `all`, `alternate`,
            `late`; to choose from.
        gating: kinds of gate (a gate a block, a recurrent one, a policy network that decides all at once, a halting
            score) and gradient estimators.
        target: what training charges for.

    The knob `layer_skipping` moves all gates at run time: one trained network has many operating points.

    Source: Wang et al., "SkipNet", ECCV 2018; Veit, Belongie, "Convolutional Networks with Adaptive Inference
        Graphs", ECCV 2018; Wu et al., "BlockDrop", CVPR 2018; Figurnov et al., "Spatially Adaptive Computation Time
        for Residual Networks", CVPR 2017.
    """

    name: ClassVar[str] = "layer_skipping"
    wing: ClassVar[str] = "sample"
    switches: ClassVar[str] = "block"
    source: ClassVar[str] = "Wang et al., ECCV 2018"
    choice_type: ClassVar[type[AbstractSpec]] = LayerSkippingChoice
    rewrites_blocks: ClassVar[bool] = True

    placement: tuple[str, ...] = PLACEMENTS
    gating: Gating = field(default_factory=Gating)
    target: Resource = field(default_factory=Resource)

    def check(self) -> None:
        """Known placements."""
        require_options("placement", self.placement, PLACEMENTS)

    def suggest(self, scope: Scope, outline: Outline) -> LayerSkippingChoice | None:
        """Blocks, then the gate, then the target."""
        options = self._options(outline)
        if not options:
            return None
        chosen = scope.categorical(f"placement_of_{len(outline.residual)}", tuple(options))
        return LayerSkippingChoice(
            options[chosen], self.gating.suggest(scope / "gating", outline), self.target.suggest(scope / "target")
        )

    def size(self, outline: Outline) -> int:
        """Placements x gatings x targets."""
        return len(self._options(outline)) * self.gating.size(outline) * self.target.size()

    def cover(self, outline: Outline) -> Iterator[LayerSkippingChoice]:
        """Every gate at the blocks of all placements; where the number of places matters, for each placement."""
        target = self.target.first()
        for gating in self.gating.cover(outline):
            for blocks in self._options(outline).values():
                yield LayerSkippingChoice(blocks, gating, target)

    def cuts(self, outline: Outline) -> Iterator[LayerSkippingChoice]:
        """Every placement."""
        for blocks in self._options(outline).values():
            yield LayerSkippingChoice(blocks, self.gating.cover(outline)[0], self.target.first())

    def decisions(self) -> tuple[str, ...]:
        """None: nobody leaves."""
        return ()

    def schemes(self) -> tuple[str, ...]:
        """The kinds of gate."""
        return self.gating.gate

    def _options(self, outline: Outline) -> dict[str, tuple[int, ...]]:
        return placed(outline.residual, self.placement) if self.gating.fitting(outline) else {}

    @classmethod
    def apply(cls, choice: LayerSkippingChoice, plan: Plan) -> None:
        """Put a choice between nothing and the block in the place of each block."""
        require_blocks(choice.blocks, plan.outline.residual, "keeps the shape of its features")
        put_choices(plan, choice.blocks, _ways, choice.gating, knob=cls.name, target=choice.target)

    @classmethod
    def describe(cls, choice: LayerSkippingChoice) -> str:
        """Such as `skips 0,2 pooled_linear gumbel 0.6 latency`."""
        return f"skips {','.join(map(str, choice.blocks))} {choice.gating.describe()} {choice.target.describe()}"


def _ways(block: nn.Module) -> tuple[Branch, Branch]:
    return Branch(None, 0.0), Branch(block, 1.0, id(block))
