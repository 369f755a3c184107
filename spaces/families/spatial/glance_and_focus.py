"""Glance and focus: a small version of the image first, then patches of it where the network wants to see more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from ...backbone import Outline
from ...decisions import DECISIONS
from ...exit_heads import exit_head
from ...exit_step import ExitStep
from ...family import AbstractFamily
from ...gradients import gradient
from ...look_step import IMAGE, SEEN, GlanceStep, Look, LookStep, Patches
from ...normalize import Normalize
from ...plan import Plan
from ...scope import Scope
from ...spec import AbstractSpec, require, require_name, require_options, require_range
from ...views import seen, seen_token
from ..sample.mixture_of_experts import fresh_copy
from .adaptive_resolution import Resize, scaled

ESTIMATORS = ("gumbel", "straight_through")
HEAD = "linear"
POOLED, HIDDEN = 2, 16  # of the policy: side of the pooled features, hidden units


@final
@dataclass(frozen=True)
class GlanceAndFocusChoice(AbstractSpec):
    """How small the glance is, how many looks may follow, where, and how choosing is learnt.

    Args:
        share: of the image's sides, for the glance and for each patch.
        looks: at patches, at most; behind the glance and behind each look but the last is an exit.
        grid: places on a side of the image.
        gradient: how training passes through the choice of a place.
        decisions: the schemes that a policy may use at run time.
    """

    share: float
    looks: int
    grid: int
    gradient: str
    decisions: tuple[str, ...] = tuple(member.name for member in DECISIONS)

    def check(self) -> None:
        """A share below 1, more places than looks, known names."""
        require(0 < self.share < 1, "share", f"must be in (0, 1), but got {self.share}")
        require_range("looks", self.looks, 1, 16)
        require_range("grid", self.grid, 2, 16)
        places = self.grid**2
        require(self.looks < places, "looks", f"must be fewer than the {places} places, but got {self.looks}")
        require_name("gradient", self.gradient, ESTIMATORS)
        require_options("decisions", self.decisions, tuple(member.name for member in DECISIONS))


@final
@dataclass(frozen=True)
class GlanceAndFocus(AbstractFamily):
    """The backbone glances at a small version of the image; inputs that it is not sure about get looks at patches.

    A policy on the features of the glance proposes a place on a grid; a reader of the same build as the backbone, with
    weights of its own, reads the patch there, and its features are added. Looks share policy and reader. Whoever is
    sure enough, by a confidence of the exits' answers, stops. Only backbones that take images of several sizes fit.

    Args:
        share: shares of the image's sides to choose from, for glance and patches. Those that the backbone is too deep
            for are not offered.
        looks: greatest numbers of looks to choose from.
        grid: numbers of places on a side to choose from.
        gradient: estimators to choose from: `gumbel`, `straight_through`.
        decision: decision schemes that policies may use; searched after training on the score table.

    Source: Wang, Lv, Huang, Song, Yang, Huang, "Glance and Focus: a Dynamic Approach to Reducing Spatial Redundancy in
        Image Classification", NeurIPS 2020; places chosen with a gradient, as in Wang et al., "Adaptive Focus for
        Efficient Video Recognition", ICCV 2021, and features that add up in the place of a recurrent cell.
    """

    name: ClassVar[str] = "glance_and_focus"
    wing: ClassVar[str] = "spatial"
    switches: ClassVar[str] = "patch"
    source: ClassVar[str] = "Wang et al., NeurIPS 2020"
    choice_type: ClassVar[type[AbstractSpec]] = GlanceAndFocusChoice
    forks: ClassVar[bool] = True

    share: tuple[float, ...] = (0.5,)
    looks: tuple[int, ...] = (1, 2)
    grid: tuple[int, ...] = (3,)
    gradient: tuple[str, ...] = ESTIMATORS
    decision: tuple[str, ...] = tuple(member.name for member in DECISIONS)

    def check(self) -> None:
        """Possible, distinct options."""
        for name in ("share", "looks", "grid"):
            require_options(name, getattr(self, name))
        require_options("gradient", self.gradient, ESTIMATORS)
        require_options("decision", self.decision, tuple(member.name for member in DECISIONS))
        for index, share in enumerate(self.share):
            require(0 < share < 1, f"share.{index}", f"must be in (0, 1), but got {share}")
        for index, grid in enumerate(self.grid):
            require_range(f"grid.{index}", grid, 2, 16)
        for index, looks in enumerate(self.looks):
            require_range(f"looks.{index}", looks, 1, min(16, min(self.grid) ** 2 - 1))

    def suggest(self, scope: Scope, outline: Outline) -> GlanceAndFocusChoice | None:
        """One question an option."""
        options = self._options(outline)
        if not options:
            return None
        # Not every share fits every backbone, and a name always means the same range.
        name = "share" if options == self.share else f"share_{'_or_'.join(map(str, options)).replace('.', 'p')}"
        return GlanceAndFocusChoice(
            scope.categorical(name, options),
            scope.categorical("looks", self.looks),
            scope.categorical("grid", self.grid),
            scope.categorical("gradient", self.gradient),
            self.decision,
        )

    def size(self, outline: Outline) -> int:
        """The product of the options."""
        return len(self._options(outline)) * len(self.looks) * len(self.grid) * len(self.gradient)

    def cover(self, outline: Outline) -> Iterator[GlanceAndFocusChoice]:
        """Every share with every grid and number of looks."""
        for share in self._options(outline):
            for grid in self.grid:
                for looks in self.looks:
                    yield GlanceAndFocusChoice(share, looks, grid, self.gradient[0], self.decision)

    def decisions(self) -> tuple[str, ...]:
        """As given."""
        return self.decision

    def schemes(self) -> tuple[str, ...]:
        """The same for stopping, a policy network for places."""
        return (*self.decision, "policy_network")

    def _options(self, outline: Outline) -> tuple[float, ...]:
        """Shares at which the backbone can run, with room for different places on every grid."""
        return tuple(share for share in self.share if not any(_refusal(share, grid, outline) for grid in self.grid))

    @classmethod
    def apply(cls, choice: GlanceAndFocusChoice, plan: Plan) -> None:
        """Resize before the backbone; behind its last block an exit before each look."""
        outline, backbone = plan.outline, plan.backbone
        refusal = _refusal(choice.share, choice.grid, outline)
        require(not refusal, "share", refusal)
        size = scaled(outline.input_shape, choice.share)
        plan.insert_start(GlanceStep(Resize(*size), size))
        shape, schemes = outline.viewed(outline.blocks - 1), tuple(m for m in DECISIONS if m.name in choice.decisions)
        # The reader is a fresh copy of the plain backbone, whatever other families make of the one that glances.
        copies = [fresh_copy(module) for module in (backbone.stem, *backbone.blocks)]
        reader = nn.Sequential(*(copies if backbone.raw else (Normalize(plan.signature), *copies)))
        policy = _policy(outline.feature_shapes[-1][0], choice.grid**2)
        look = Look(policy, Patches(outline.input_shape, size, choice.grid), reader)
        token = seen_token(backbone.view, HEAD)
        for index in range(choice.looks):
            head = seen(backbone.view, exit_head(HEAD).build(shape, outline.classes))
            exit_step = ExitStep(
                index, head, decisions=schemes, token=token, classes=outline.classes, carried=(IMAGE, SEEN)
            )
            place = (index + 1) / choice.looks
            plan.insert_last(exit_step)
            plan.insert_last(LookStep(index, look, gradient=gradient(choice.gradient), place=place))

    @classmethod
    def describe(cls, choice: GlanceAndFocusChoice) -> str:
        """Such as `glance 0.5, 2 looks at 3 x 3 places gumbel`."""
        count = "1 look" if choice.looks == 1 else f"{choice.looks} looks"
        return f"glance {choice.share:g}, {count} at {choice.grid} x {choice.grid} places {choice.gradient}"


def _policy(channels: int, places: int) -> nn.Module:
    """Features `b x c x h x w` -> logits `b x places`."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(POOLED),
        nn.Flatten(),
        nn.Linear(channels * POOLED**2, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, places),
    )


def _refusal(share: float, grid: int, outline: Outline) -> str:
    """Why a backbone cannot glance and look at this share of its inputs' sides; empty: it can."""
    if outline.least_side is None or len(outline.input_shape) != 3:
        return "this backbone takes inputs of one shape only; use one that takes images of several sizes"
    size = scaled(outline.input_shape, share)
    if min(size) < outline.least_side:
        return f"{size[0]} x {size[1]} is below this backbone's least side of {outline.least_side}; use a larger share"
    if min(whole - side for whole, side in zip(outline.input_shape[1:], size, strict=True)) < grid - 1:
        return f"patches of {size[0]} x {size[1]} leave no room for {grid} places on a side; use a smaller share"
    return ""
