"""Branch routing: several different blocks in one place, of which each input runs one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import Tensor, nn

from ...backbone import Outline
from ...block_family import AbstractBlockChoice, AbstractGatedFamily, dashed
from ...choice_step import Branch
from ...gated import EXPLORE, put_choices
from ...gating import GatingChoice
from ...plan import Plan
from ...resource import Resource, ResourceChoice
from ...spec import AbstractSpec, require, require_name

WAYS = ("pointwise", "separable")  # by rising work
BLOCK = "block"
Shape = tuple[int, ...]


@final
@dataclass(frozen=True)
class BranchRoutingChoice(AbstractBlockChoice):
    """Which blocks have rivals, which these are, who decides, and how much may be spent.

    Args:
        ways: kinds of branch by rising work: `pointwise`, `separable`, and the `block` itself as the last.
        gating: who decides.
        target: what training charges for.
    """

    ways: tuple[str, ...]
    gating: GatingChoice
    target: ResourceChoice

    def check_options(self) -> None:
        """Known ways by rising work, the block last, something to choose from."""
        for way in self.ways:
            require_name("ways", way, (*WAYS, BLOCK))
        ordered = tuple(way for way in (*WAYS, BLOCK) if way in self.ways)
        rule = f"must name two or more of {', '.join((*WAYS, BLOCK))} in this order, the last one {BLOCK}"
        right = self.ways == ordered and len(ordered) >= 2 and ordered[-1] == BLOCK
        require(right, "ways", f"{rule}, but got {list(self.ways)}")


@final
class Way(nn.Module):
    """Convolutions that may stand for a block, beside a shortcut if they keep the shape; `b x c x h x w`.

    Args:
        kind: `pointwise`: each place alone; `separable`: 3 x 3 a channel, then pointwise.
        before: shape of the inputs, without the batch.
        after: of what comes out.
    """

    def __init__(self, kind: str, before: Shape, after: Shape) -> None:
        super().__init__()
        stride, c = _stride(before, after), before[0]
        spread = nn.Conv2d(c, c, 3, stride, 1, groups=c, bias=False)
        wide = kind == "separable"
        mix = nn.Conv2d(c, after[0], 1, 1 if wide else stride, bias=False)
        layers = [spread, nn.BatchNorm2d(c), mix] if wide else [mix]
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(after[0]), nn.ReLU())
        self.same = before == after

    def forward(self, x: Tensor) -> Tensor:
        """Features after the branch."""
        made: Tensor = self.body(x)
        return x + made if self.same else made


@final
@dataclass(frozen=True)
class BranchRouting(AbstractGatedFamily):
    """A gate sends each input through the block or through a cheaper one of another kind.

    Unlike a slice of the block, a cheap branch shares no weights with it, and so learns what easy inputs need.

    Args:
        placement: which of the blocks that are dearer than every rival have some; to choose from.
        ways: sets of branches to choose from, by rising work, each ending in `block`.
        gating: kinds of gate and gradient estimators.
        target: what training charges for.

    The knob `branch_routing` moves all gates at run time.

    Source: Cheng et al., "InstaNAS: Instance-aware Neural Architecture Search", AAAI 2020 (a controller picks each
        input's operations); Mullapudi, Mark, Shazeer, Fatahalian, "HydraNets: Specialized Dynamic Architectures for
        Efficient Inference", CVPR 2018 (branches that specialise).
    """

    name: ClassVar[str] = "branch_routing"
    wing: ClassVar[str] = "sample"
    switches: ClassVar[str] = "branch"
    source: ClassVar[str] = "Cheng et al., AAAI 2020"
    choice_type: ClassVar[type[AbstractSpec]] = BranchRoutingChoice
    fits: ClassVar[str] = f"costs more than a {WAYS[-1]} convolution in its place"

    placement: tuple[str, ...] = ("all", "late")
    ways: tuple[tuple[str, ...], ...] = (("separable", BLOCK), ("pointwise", "separable", BLOCK))
    target: Resource = field(default_factory=Resource)

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """Blocks of images that are dearer than every rival."""
        return tuple(block for block in range(outline.blocks) if _dear(outline, block))

    @classmethod
    def apply(cls, choice: BranchRoutingChoice, plan: Plan) -> None:
        """Put a choice between branches in the place of each block."""
        cls.require_fit(choice, plan.outline)
        numbers = {plan.block(number): number for number in choice.blocks}

        def ways(block: nn.Module) -> list[Branch]:
            number = numbers[block]
            before, after = plan.outline.before(number), plan.outline.feature_shapes[number]
            whole = plan.outline.block_macs[number]
            rivals = [
                Branch(Way(kind, before, after), _macs(kind, before, after) / whole, (cls.name, kind, after))
                for kind in choice.ways[:-1]
            ]
            return [*rivals, Branch(block, 1.0, id(block))]

        put_choices(plan, choice.blocks, ways, choice.gating, knob=cls.name, target=choice.target, explore=EXPLORE)

    @classmethod
    def describe(cls, choice: BranchRoutingChoice) -> str:
        """Such as `ways separable-block at 0,2 pooled_linear gumbel 0.6 latency`."""
        what = f"ways {dashed(choice.ways)} at {choice.places}"
        return f"{what} {choice.gating.describe()} {choice.target.describe()}"


def _dear(outline: Outline, block: int) -> bool:
    before, after = outline.before(block), outline.feature_shapes[block]
    if len(before) != 3 or len(after) != 3:
        return False
    stride = _stride(before, after)
    fits = all(-(-side // stride) == made for side, made in zip(before[1:], after[1:], strict=True))
    return fits and _macs(WAYS[-1], before, after) < outline.block_macs[block]


def _stride(before: Shape, after: Shape) -> int:
    return max(1, round(before[1] / after[1]))


def _macs(kind: str, before: Shape, after: Shape) -> int:
    """Multiply-accumulates of a way for one input."""
    places = after[1] * after[2]
    spread = 9 * before[0] * places if kind == "separable" else 0
    return spread + before[0] * after[0] * places
