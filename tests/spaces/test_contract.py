"""Every member of the tuples keeps its contract. A new family, backbone or scheme adds a row here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import optuna
import pytest

from dynarch.spaces.backbone import AbstractBackbone, Signature
from dynarch.spaces.backbones import BACKBONES, FrameRecurrent, InvertedResidual, Recurrent, Residual
from dynarch.spaces.backbones.testing import BackboneContract
from dynarch.spaces.decision import AbstractDecision
from dynarch.spaces.decisions import DECISIONS
from dynarch.spaces.families import (
    FAMILIES,
    AdaptiveResolution,
    BlockSparse,
    CoarseUpdate,
    DynamicConvolution,
    DynamicRelu,
    EarlyExit,
    LayerSkipping,
    MixtureOfExperts,
    PaddingSkip,
    SkipUpdate,
    SlimmableWidth,
    SqueezeExcitation,
)
from dynarch.spaces.family import AbstractFamily
from dynarch.spaces.gates import GATES
from dynarch.spaces.gating import Gating
from dynarch.spaces.gradients import GRADIENTS
from dynarch.spaces.probes import SIGNATURES
from dynarch.spaces.scope import Replay, Suggester
from dynarch.spaces.testing import DecisionContract, FamilyContract, Params

ALL_GRADIENTS = tuple(member.name for member in GRADIENTS)

# Ranges wide enough to reach every part of a family or backbone, small enough to list all members.
FAMILY_ROWS: tuple[AbstractFamily, ...] = (
    LayerSkipping(gating=Gating(gate=tuple(member.name for member in GATES), gradient=ALL_GRADIENTS)),
    SlimmableWidth(gating=Gating(gradient=ALL_GRADIENTS)),
    MixtureOfExperts(gating=Gating(gradient=ALL_GRADIENTS)),
    SkipUpdate(gating=Gating(gradient=ALL_GRADIENTS)),
    CoarseUpdate(share=(0.5,), gating=Gating(gradient=ALL_GRADIENTS)),
    PaddingSkip(),
    DynamicConvolution(),
    BlockSparse(tile=(1, 2, 4), gating=Gating(gate=("spatial",), gradient=ALL_GRADIENTS)),
    SqueezeExcitation(reduction=(2, 4)),
    DynamicRelu(),
    AdaptiveResolution(gating=Gating(gate=("convolutional", "pooled_mlp"), gradient=ALL_GRADIENTS)),
    EarlyExit(heads=("linear", "mlp", "conv")),
)
BACKBONE_ROWS: tuple[AbstractBackbone, ...] = (
    Residual(width=(4, 6), depth=(1, 2), stages=2),
    InvertedResidual(width=(4, 6), expansion=(1, 3), depth=(1, 2), stages=2),
    Recurrent(width=(4, 6), chunks=(1, 2, 4)),
    FrameRecurrent(width=(2, 3), state=(4, 6), chunks=(1, 2, 3)),
)


def test_every_member_has_its_row() -> None:
    assert tuple(type(row) for row in FAMILY_ROWS) == FAMILIES
    assert tuple(type(row) for row in BACKBONE_ROWS) == BACKBONES
    for members in (FAMILIES, BACKBONES, DECISIONS):
        names = [member.name for member in members]
        assert len(set(names)) == len(names), "two members share a name"


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
