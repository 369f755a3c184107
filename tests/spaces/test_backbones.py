from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dynarch.spaces.backbone import Backbone, Signature, outline
from dynarch.spaces.backbones import InvertedResidual, Residual, backbone_type
from dynarch.spaces.backbones.inverted_residual import InvertedResidualBlock, InvertedResidualChoice
from dynarch.spaces.backbones.residual import BasicBlock, ResidualChoice
from dynarch.spaces.errors import ShapeError, SpecError, UnknownNameError
from dynarch.tests import oracles

SIGNATURE = Signature((1, 8, 8), 4)


def chain(*blocks: nn.Module, head: nn.Module, stages: tuple[int, ...] | None = None) -> Backbone:
    return Backbone(stem=nn.Identity(), blocks=list(blocks), stages=stages or (len(blocks),), head=head)


def flat(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


@pytest.mark.parametrize(
    ("block", "shape", "channels", "macs"),
    [
        (nn.Conv2d(1, 16, 3, padding=1), (1, 16, 16), 16, oracles.CONVOLUTION_MACS),
        (BasicBlock(4, 4, 1), (4, 8, 8), 4, oracles.BASIC_BLOCK_MACS),
        (BasicBlock(4, 8, 2), (4, 8, 8), 8, oracles.BASIC_BLOCK_HALVING_MACS),
        (InvertedResidualBlock(4, 4, 1, 2), (4, 8, 8), 4, oracles.INVERTED_BLOCK_MACS),
        (InvertedResidualBlock(4, 8, 2, 2), (4, 8, 8), 8, oracles.INVERTED_BLOCK_HALVING_MACS),
    ],
    ids=["convolution", "basic", "basic halving", "inverted", "inverted halving"],
)
def test_outline_counts_multiply_accumulates(
    block: nn.Module, shape: tuple[int, ...], channels: int, macs: int
) -> None:
    made = outline(chain(block, head=flat(channels, 3)).eval(), Signature(shape, 3))
    assert made.block_macs == (macs,)
    assert made.feature_shapes[0][0] == channels


def test_convolution_has_the_weights_counted_by_hand() -> None:
    block = nn.Conv2d(1, 16, 3, padding=1)
    assert sum(weight.numel() for weight in block.parameters()) == oracles.CONVOLUTION_PARAMETERS


@pytest.mark.parametrize(
    ("backbone", "parameters"),
    [
        (Residual.build(ResidualChoice(4, (1, 1)), SIGNATURE), oracles.RESIDUAL_PARAMETERS),
        (InvertedResidual.build(InvertedResidualChoice(4, 2, (1, 1)), SIGNATURE), oracles.INVERTED_PARAMETERS),
    ],
    ids=["residual", "inverted"],
)
def test_backbone_has_the_weights_counted_by_hand(backbone: Backbone, parameters: int) -> None:
    assert sum(weight.numel() for weight in backbone.parameters()) == parameters


@pytest.mark.parametrize("kind", [Residual, InvertedResidual])
def test_stages_halve_sides_and_double_channels(kind: type[Residual] | type[InvertedResidual]) -> None:
    choice = kind(width=(4,), depth=(2,), stages=3).extremes()[0]
    made = outline(backbone_type(kind.name).build(choice, SIGNATURE).eval(), SIGNATURE)
    assert made.stages == (2, 2, 2)
    assert made.feature_shapes == ((4, 8, 8), (4, 8, 8), (8, 4, 4), (8, 4, 4), (16, 2, 2), (16, 2, 2))


def test_outline_leaves_norms_and_generator_alone() -> None:
    built = Residual.build(ResidualChoice(4, (1, 1)), SIGNATURE).eval()
    before = {name: value.clone() for name, value in built.state_dict().items()}
    generator = torch.get_rng_state()
    outline(built, SIGNATURE)
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_shortcut_is_used_only_where_shapes_allow() -> None:
    class Zero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    x = torch.rand(2, 4, 8, 8)
    same, wider = InvertedResidualBlock(4, 4, 1, 2).eval(), InvertedResidualBlock(4, 8, 1, 2).eval()
    same.project.append(Zero())
    wider.project.append(Zero())
    assert torch.equal(same(x), x)
    assert not wider(x).any()


@pytest.mark.parametrize("kind", [Residual, InvertedResidual], ids=lambda kind: kind.name)
def test_small_images_are_refused_with_a_remedy(kind: type[Residual]) -> None:
    choice = kind(width=(4,), depth=(1,), stages=4).extremes()[0]
    kind.build(choice, Signature((3, 8, 8), 4))  # three halvings: 8, 4, 2, 1
    with pytest.raises(ShapeError, match="images of 7 x 9 cannot be halved 3 times; use fewer stages"):
        kind.build(choice, Signature((3, 7, 9), 4))


def test_outline_refuses_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="cannot take inputs of shape"):
        outline(chain(nn.Conv2d(3, 4, 3), head=flat(4, 2)).eval(), Signature((1, 8, 8), 2))
    with pytest.raises(ShapeError, match="must give 1 x 2 logits, but gave"):
        outline(chain(nn.Conv2d(1, 4, 3), head=flat(4, 3)).eval(), Signature((1, 8, 8), 2))
    with pytest.raises(ShapeError, match="must add up"):
        chain(nn.Identity(), head=nn.Identity(), stages=(1, 1))


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: Residual(width=()), "width"),
        (lambda: Residual(width=(8, 8)), "width"),
        (lambda: Residual(width=(0, 8)), "width"),
        (lambda: Residual(depth=(0,)), "depth"),
        (lambda: Residual(stages=0), "stages"),
        (lambda: Residual(stages=7), "stages"),
        (lambda: ResidualChoice(0, (1,)), "width"),
        (lambda: ResidualChoice(4, ()), "depths"),
        (lambda: ResidualChoice(4, (1, 0)), "depths"),
        (lambda: InvertedResidual(expansion=(9,)), "expansion"),
        (lambda: InvertedResidual(expansion=(0, 1)), "expansion"),
        (lambda: InvertedResidual(depth=()), "depth"),
        (lambda: InvertedResidual(stages=9), "stages"),
        (lambda: InvertedResidualChoice(4, 0, (1,)), "expansion"),
        (lambda: Signature((), 3), "input_shape"),
        (lambda: Signature((1, 0, 8), 3), "input_shape"),
        (lambda: Signature((1, 8, 8), 1), "classes"),
    ],
)
def test_impossible_ranges_name_the_field(make: object, path: str) -> None:
    assert callable(make)
    with pytest.raises(SpecError) as caught:
        make()
    assert caught.value.path == path


def test_unknown_backbone_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'residual'") as caught:
        backbone_type("residul", "space.backbones.residul")
    assert caught.value.path == "space.backbones.residul"


def test_descriptions() -> None:
    assert Residual.describe(ResidualChoice(16, (2, 1, 2))) == "residual w16 d2-1-2"
    assert InvertedResidual.describe(InvertedResidualChoice(8, 4, (1, 2))) == "inverted w8 e4 d1-2"
