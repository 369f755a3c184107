"""Every member of the tuples keeps its contract. A new family, backbone or scheme adds a row here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import optuna
import pytest

from dynarch.spaces.backbone import AbstractBackbone, Signature
from dynarch.spaces.backbones import (
    BACKBONES,
    FrameRecurrent,
    InvertedResidual,
    MultiScaleDense,
    Recurrent,
    Residual,
    TextTransformer,
    VisionTransformer,
)
from dynarch.spaces.backbones.testing import BackboneContract
from dynarch.spaces.decision import AbstractDecision
from dynarch.spaces.decisions import DECISIONS
from dynarch.spaces.decisions.testing import DecisionContract
from dynarch.spaces.families import (
    FAMILIES,
    AdaptiveResolution,
    BlockSparse,
    BranchRouting,
    Cascade,
    ChannelSaliency,
    CoarseUpdate,
    DynamicConvolution,
    DynamicRelu,
    EarlyExit,
    FrameSelection,
    GlanceAndFocus,
    Jumping,
    LayerSkipping,
    MixtureOfExperts,
    PaddingSkip,
    SkipUpdate,
    SlimmableWidth,
    SqueezeExcitation,
    TemporalExit,
    TokenMerging,
    TokenPruning,
)
from dynarch.spaces.family import AbstractFamily
from dynarch.spaces.gates import GATES
from dynarch.spaces.gating import Gating
from dynarch.spaces.gradients import GRADIENTS
from dynarch.spaces.little import Little
from dynarch.spaces.probes import SIGNATURES
from dynarch.spaces.scope import Replay, Suggester
from dynarch.spaces.testing import FamilyContract, Params, fits, looked_at_closely

ALL_GRADIENTS = tuple(member.name for member in GRADIENTS)

# Ranges wide enough to reach every part of a family or backbone, small enough to list all members.
FAMILY_ROWS: tuple[AbstractFamily, ...] = (
    LayerSkipping(gating=Gating(gate=tuple(member.name for member in GATES), gradient=ALL_GRADIENTS)),
    SlimmableWidth(gating=Gating(gradient=ALL_GRADIENTS)),
    ChannelSaliency(shares=((0.5,), (0.25, 0.6, 1.0))),
    BranchRouting(gating=Gating(gate=("pooled_linear", "recurrent"), gradient=ALL_GRADIENTS)),
    MixtureOfExperts(experts=(2, 3), gating=Gating(gradient=ALL_GRADIENTS)),
    SkipUpdate(gating=Gating(gradient=ALL_GRADIENTS)),
    CoarseUpdate(share=(0.5,), gating=Gating(gradient=ALL_GRADIENTS)),
    Jumping(gating=Gating(gradient=ALL_GRADIENTS)),
    FrameSelection(keep=((0.25, 0.5, 1.0),), hidden=(4,)),
    PaddingSkip(),
    DynamicConvolution(),
    BlockSparse(tile=(1, 2, 4), gating=Gating(gate=("spatial",), gradient=ALL_GRADIENTS)),
    SqueezeExcitation(reduction=(2, 4)),
    DynamicRelu(),
    Cascade(little=Little((Residual(width=(2, 4), depth=(1,), stages=1), InvertedResidual(width=(2,), stages=1)))),
    AdaptiveResolution(gating=Gating(gate=("convolutional", "pooled_mlp"), gradient=ALL_GRADIENTS)),
    EarlyExit(heads=("linear", "mlp", "conv")),
    TemporalExit(),
    GlanceAndFocus(grid=(2, 3)),
    TokenPruning(shares=((0.5, 1.0), (0.5, 0.75, 1.0))),
    TokenMerging(shares=((0.5, 0.75, 1.0),), trained=(False, True)),
)
BACKBONE_ROWS: tuple[AbstractBackbone, ...] = (
    Residual(width=(4, 6), depth=(1, 2), stages=2),
    InvertedResidual(width=(4, 6), expansion=(1, 3), depth=(1, 2), stages=2),
    MultiScaleDense(growth=(2, 4), depth=(1, 2), stages=2),
    VisionTransformer(
        patch=(2, 3), width=(8, 12), depth=(1, 2), heads=(2, 4), expansion=(1, 2), query=("mean", "class")
    ),
    Recurrent(width=(4, 6), chunks=(1, 2, 4)),
    FrameRecurrent(width=(2, 3), state=(4, 6), chunks=(1, 2, 3)),
    TextTransformer(width=(8, 12), depth=(1, 2), heads=(2, 4), expansion=(1, 2), query=("mean", "class")),
)


def test_every_member_has_its_row() -> None:
    assert tuple(type(row) for row in FAMILY_ROWS) == FAMILIES
    assert tuple(type(row) for row in BACKBONE_ROWS) == BACKBONES
    for members in (FAMILIES, BACKBONES, DECISIONS):
        names = [member.name for member in members]
        assert len(set(names)) == len(names), "two members share a name"


def test_every_backbone_is_looked_at_closely() -> None:
    """The dear checks leave out pairs, but no backbone and no family."""
    for backbone in BACKBONE_ROWS:
        able = [family for family in FAMILY_ROWS if fits(family, backbone)]
        assert sum(looked_at_closely(family, backbone) for family in able) >= 2, backbone.name
    for family in FAMILY_ROWS:
        fit = [backbone for backbone in BACKBONE_ROWS if fits(family, backbone)]
        assert sum(looked_at_closely(family, backbone) for backbone in fit) == min(2, len(fit)), family.name


def fixed_trial(params: Params) -> Suggester:
    return cast(Suggester, optuna.trial.FixedTrial(dict(params)))  # its overloads say less than it can


class TestFamilies(FamilyContract):
    @pytest.fixture(params=FAMILY_ROWS, ids=lambda row: row.name)
    def family(self, request: pytest.FixtureRequest) -> AbstractFamily:
        row: AbstractFamily = request.param
        return row

    @pytest.fixture
    def suggesters(self) -> Sequence[Callable[[Params], Suggester]]:
        return (Replay, fixed_trial)


TASKS = [(row, kind) for row in BACKBONE_ROWS for kind in row.kinds]


class TestBackbones(BackboneContract):
    @pytest.fixture(params=TASKS, ids=[f"{row.name}-{kind}" for row, kind in TASKS])
    def task(self, request: pytest.FixtureRequest) -> tuple[AbstractBackbone, str]:
        made: tuple[AbstractBackbone, str] = request.param
        return made

    @pytest.fixture
    def backbone(self, task: tuple[AbstractBackbone, str]) -> AbstractBackbone:
        return task[0]

    @pytest.fixture
    def signature(self, task: tuple[AbstractBackbone, str]) -> Signature:
        return SIGNATURES[task[1]]


class TestDecisions(DecisionContract):
    @pytest.fixture(params=DECISIONS, ids=lambda member: member.name)
    def decision(self, request: pytest.FixtureRequest) -> AbstractDecision:
        member: AbstractDecision = request.param
        return member
