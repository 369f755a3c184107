"""Adaptive resolution: easy inputs are looked at in small."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import Tensor, nn
from torch.nn import functional

from ...backbone import Outline
from ...block_family import dashed
from ...family import AbstractFamily
from ...fork_step import ForkStep, Variant
from ...gate import GateUnit
from ...gated import EXPLORE, OPENING
from ...gates import gate
from ...gating import Gating, GatingChoice
from ...normalize import Normalize
from ...plan import Plan
from ...resource import Resource, ResourceChoice, ResourceTarget
from ...scope import Scope
from ...spec import AbstractSpec, require, require_name, require_options

DECIDERS = ("gate", "external_budget")
PREDICTORS = ("convolutional", "pooled_mlp", "pooled_linear")  # each looks once, and remembers nothing


@final
@dataclass(frozen=True)
class AdaptiveResolutionChoice(AbstractSpec):
    """Which resolutions there are, and who picks.

    Args:
        shares: of the side of the inputs, ascending to 1.
        decided: by a learned `gate`, or by an `external_budget` that holds for all inputs alike.
        gating: of the gate; None without one.
        target: what training charges a gate for; None without one.
    """

    shares: tuple[float, ...]
    decided: str
    gating: GatingChoice | None = None
    target: ResourceChoice | None = None

    def check(self) -> None:
        """Shares that ascend to 1; a gate and its target where a gate decides."""
        check_shares(self.shares, "shares")
        require_name("decided", self.decided, DECIDERS)
        gated = self.decided == "gate"
        for name, value in (("gating", self.gating), ("target", self.target)):
            require((value is not None) == gated, name, f"belongs to decided = 'gate', but decided = {self.decided!r}")
        if self.gating is not None:
            require_name("gating.gate", self.gating.gate, PREDICTORS)


@final
class Resize(nn.Module):
    """Images `b x c x h x w` at another resolution, by interpolation between neighbours."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.size = (height, width)

    def forward(self, x: Tensor) -> Tensor:
        """`b x c x height x width`."""
        return functional.interpolate(x, size=self.size, mode="bilinear", align_corners=False)


@final
@dataclass(frozen=True)
class AdaptiveResolution(AbstractFamily):
    """The whole network runs on a smaller version of the image where that is enough.

    A small gate looks at the image at the lowest resolution and picks one for the network; or nobody looks, and the
    knob `adaptive_resolution` sets one resolution for all inputs, by what may be spent at the moment. All resolutions
    share the weights, but normalisation is their own. Only backbones that take images of several sizes fit.

    Args:
        shares: sets of resolutions to choose from, as shares of the side that ascend to 1. Sets with a share that the
            backbone is too deep for, or that two of their shares round to one side, are not offered.
        decided: `gate`, `external_budget`; to choose from.
        gating: kinds of gate and gradient estimators.
        target: what training charges a gate for.

    Source: Zhu, Han, Wu, Zhang, Nie, Lan, Wang, "Dynamic Resolution Network", NeurIPS 2021.
    """

    name: ClassVar[str] = "adaptive_resolution"
    wing: ClassVar[str] = "spatial"
    switches: ClassVar[str] = "resolution"
    source: ClassVar[str] = "Zhu et al., NeurIPS 2021"
    choice_type: ClassVar[type[AbstractSpec]] = AdaptiveResolutionChoice
    forks: ClassVar[bool] = True

    shares: tuple[tuple[float, ...], ...] = ((0.5, 1.0), (0.5, 0.75, 1.0))
    decided: tuple[str, ...] = DECIDERS
    gating: Gating = field(default_factory=lambda: Gating(gate=("convolutional",)))
    target: Resource = field(default_factory=Resource)

    def check(self) -> None:
        """Possible resolutions, known deciders."""
        require_options("shares", self.shares)
        for index, shares in enumerate(self.shares):
            check_shares(shares, f"shares.{index}")
        require_options("decided", self.decided, DECIDERS)
        require_options("gating.gate", self.gating.gate, PREDICTORS)

    def suggest(self, scope: Scope, outline: Outline) -> AdaptiveResolutionChoice | None:
        """Resolutions, who decides, then the gate and its target if there is one."""
        options = self._options(outline)
        if not options:
            return None
        named = {dashed(shares): shares for shares in options}
        # Not every set fits every backbone, and a name always means the same range.
        name = "shares" if options == self.shares else f"shares_{'_or_'.join(named).replace('.', 'p')}"
        shares = named[scope.categorical(name, tuple(named))]
        decided = scope.categorical("decided", self.decided)
        if decided != "gate":
            return AdaptiveResolutionChoice(shares, decided)
        gating = self.gating.suggest(scope / "gating", _seen(outline))
        return AdaptiveResolutionChoice(shares, decided, gating, self.target.suggest(scope / "target", outline))

    def size(self, outline: Outline) -> int:
        """Resolutions x (gatings x targets, and one budget)."""
        gates = self.gating.size(_seen(outline)) * self.target.size(outline) if "gate" in self.decided else 0
        return len(self._options(outline)) * (gates + ("external_budget" in self.decided))

    def cover(self, outline: Outline) -> Iterator[AdaptiveResolutionChoice]:
        """Every set of resolutions with every gate, and with none."""
        for shares in self._options(outline):
            if "gate" in self.decided:
                for gating in self.gating.cover(_seen(outline)):
                    yield AdaptiveResolutionChoice(shares, "gate", gating, self.target.cover(outline)[0])
            if "external_budget" in self.decided:
                yield AdaptiveResolutionChoice(shares, "external_budget")

    def cuts(self, outline: Outline) -> Iterator[AdaptiveResolutionChoice]:
        """Every set of resolutions once."""
        made = {choice.shares: choice for choice in self.cover(outline)}
        return iter(made.values())

    def decisions(self) -> tuple[str, ...]:
        """None: nobody leaves."""
        return ()

    def schemes(self) -> tuple[str, ...]:
        """The kinds of gate, and the budget."""
        gates = self.gating.gate if "gate" in self.decided else ()
        return gates + tuple(name for name in self.decided if name != "gate")

    def _options(self, outline: Outline) -> tuple[tuple[float, ...], ...]:
        """The sets of resolutions that make as many different, possible images."""
        return tuple(shares for shares in self.shares if not _refusal(shares, outline))

    @classmethod
    def apply(cls, choice: AdaptiveResolutionChoice, plan: Plan) -> None:
        """Fork the network before its stem."""
        outline = plan.outline
        refusal = _refusal(choice.shares, outline)
        require(not refusal, "shares", refusal)
        sides = [scaled(outline.input_shape, share) for share in choice.shares]
        variants = [
            Variant(f"r{max(size)}", Resize(*size) if share < 1 else None, share**2, ("resize", size))
            for share, size in zip(choice.shares, sides, strict=True)
        ]
        unit = None
        if choice.gating is not None:
            small = (outline.input_shape[0], *sides[0])
            (built,) = gate(choice.gating.gate).build(small, [small], len(variants), OPENING).units
            eye = nn.Sequential(Resize(*sides[0]), Normalize(plan.signature), built.module)
            unit = GateUnit(eye, f"resolution {built.token} {sides[0]}")
        gradient = None if choice.gating is None else choice.gating.estimator()
        plan.insert_start(ForkStep(variants, gate=unit, knob=cls.name, gradient=gradient, explore=EXPLORE))
        if choice.target is not None:
            plan.charge(ResourceTarget((tuple(f"@{each.name}" for each in variants),), choice.target))

    @classmethod
    def describe(cls, choice: AdaptiveResolutionChoice) -> str:
        """Such as `resolutions 0.5-1 convolutional gumbel 0.6 latency`."""
        words = [f"resolutions {dashed(choice.shares)}"]
        if choice.gating is None or choice.target is None:
            return f"{words[0]} by {choice.decided.replace('_', ' ')}"
        return " ".join([*words, choice.gating.describe(), choice.target.describe()])


def scaled(input_shape: tuple[int, ...], share: float) -> tuple[int, int]:
    """Height and width of images `c x h x w` at a share of their sides."""
    _, height, width = input_shape
    return max(1, round(share * height)), max(1, round(share * width))


def check_shares(shares: tuple[float, ...], path: str) -> None:
    """Raise unless shares ascend within (0, 1], end in 1, and are two at least."""
    require(len(shares) >= 2, path, f"must hold two resolutions at least, but got {list(shares)}")
    require(list(shares) == sorted(set(shares)), path, f"must ascend, but got {list(shares)}")
    require(shares[0] > 0 and shares[-1] == 1, path, f"must lie in (0, 1] and end in 1, but got {list(shares)}")


def _refusal(shares: tuple[float, ...], outline: Outline) -> str:
    """Why a backbone cannot run at these shares of its inputs' sides; empty: it can."""
    if outline.least_side is None or len(outline.input_shape) != 3:
        return "this backbone takes inputs of one shape only; use one that takes images of several sizes"
    sides = [scaled(outline.input_shape, share) for share in shares]
    if min(sides[0]) < outline.least_side:
        small = f"{sides[0][0]} x {sides[0][1]}"
        return f"{small} is below this backbone's least side of {outline.least_side}; use larger shares"
    if len({max(size) for size in sides}) < len(sides):
        return f"two of {list(shares)} round to one side of these inputs; use shares that lie further apart"
    return ""


def _seen(outline: Outline) -> Outline:
    """The outline as the gate sees it: nothing but the image."""
    return outline.showing(outline.input_shape)
