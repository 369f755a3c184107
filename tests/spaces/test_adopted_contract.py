"""Families keep their contract on an adopted network, and an adopted network keeps that of backbones."""

from __future__ import annotations

import pytest
import torch

from dynarch.spaces.adoption import adopt
from dynarch.spaces.backbone import AbstractBackbone, Signature
from dynarch.spaces.backbones.testing import BackboneContract
from dynarch.spaces.errors import ShapeError
from dynarch.spaces.families import EarlyExit, LayerSkipping, SqueezeExcitation
from dynarch.spaces.family import AbstractFamily
from dynarch.spaces.probes import SIGNATURES, fitting
from dynarch.spaces.testing import FamilyContract
from dynarch.tests.own_models import TorchvisionResNet, settled

FAMILIES: tuple[AbstractFamily, ...] = (
    EarlyExit(heads=("linear",), training=("equal",)),
    LayerSkipping(),
    SqueezeExcitation(),
)


@pytest.fixture(scope="module")
def adopted() -> AbstractBackbone:
    torch.manual_seed(0)
    x = torch.randn(16, 1, 8, 8)
    return adopt(settled(TorchvisionResNet((2, 1)), x), x[:3], rate=(1.0,))


class TestFamiliesOnAnAdoptedNetwork(FamilyContract):
    @pytest.fixture(params=FAMILIES, ids=lambda row: row.name)
    def family(self, request: pytest.FixtureRequest) -> AbstractFamily:
        row: AbstractFamily = request.param
        return row

    @pytest.fixture
    def backbone(self, family: AbstractFamily, adopted: AbstractBackbone) -> AbstractBackbone:
        assert fitting(family, adopted, SIGNATURES["image"]) is not None
        return adopted


class TestAdoptedNetwork(BackboneContract):
    @pytest.fixture
    def backbone(self, adopted: AbstractBackbone) -> AbstractBackbone:
        return adopted

    @pytest.fixture
    def signature(self) -> Signature:
        return SIGNATURES["image"]

    def test_unfit_inputs_are_refused(self, backbone: AbstractBackbone) -> None:
        others = [Signature((5,), 4), Signature((1, 8, 8), 5), Signature((1, 8, 9), 4), SIGNATURES["text"]]
        for signature in others:
            with pytest.raises(ShapeError, match="adopt it with an example of this data"):
                backbone.build(backbone.extremes()[0], signature)
