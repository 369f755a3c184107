"""What a network looked at, against what it ran."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from torch import Tensor

from dynarch.evaluators.looked_at import LookedAt, looked_at, masks_of
from dynarch.spaces.backbones import Recurrent, Residual, VisionTransformer
from dynarch.spaces.families import (
    BlockSparse,
    EarlyExit,
    FrameSelection,
    GlanceAndFocus,
    SkipUpdate,
    TokenMerging,
    TokenPruning,
)
from dynarch.spaces.family import AbstractFamily
from dynarch.spaces.look_step import Patches
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.policy import Policy
from dynarch.spaces.probes import SIGNATURES, sample, trained
from dynarch.spaces.signature import Signature
from dynarch.spaces.space import Space
from dynarch.spaces.token_reduction import kept_of

IMAGE, SEQUENCE = SIGNATURES["image"], SIGNATURES["sequence"]
SMALL = Residual(width=(4,), depth=(2,), stages=1)  # features of 8 x 8, as the images


def member(backbone: object, family: AbstractFamily, signature: Signature) -> tuple[DynamicNetwork, Tensor]:
    """A network that has the family, and twelve inputs."""
    space = Space((backbone,), (family,))  # type: ignore[arg-type]
    for _, architecture in sample(space, signature, number=8):
        if architecture.families:
            return trained(architecture, signature, inputs=12)
    raise AssertionError(f"{family.name} does not fit")


def seen(network: DynamicNetwork, x: Tensor, setting: Mapping[str, float] | None = None) -> Iterator[LookedAt]:
    """Each input by itself, run to its end."""
    policy = Policy("max_prob", (None,) * network.exits, tuple((setting or {}).items()))
    for index in range(len(x)):
        yield looked_at(network, x[index : index + 1], policy)


def test_the_mask_of_tiles_covers_as_many_as_ran() -> None:
    """Tiles of 2 x 2 on 8 x 8: one is 1/16 of the image. Both blocks may be sparse; the mask is their mean."""
    network, x = member(SMALL, BlockSparse(tile=(2,)), IMAGE)
    assert masks_of(network) == "tiles"
    shares = set()
    for knob in (-2.0, 0.0, 2.0):
        for each in seen(network, x, {"block_sparse": knob}):
            ran = [count for part, count in each.ran.items() if part.startswith("tiles.")]
            gates = sum(part.startswith("gate.") for part in each.ran)
            assert each.mask.shape == (8, 8)
            assert each.mask.mean() == pytest.approx(sum(ran) / 16 / gates)
            shares.add(each.mask.mean())
    assert len(shares) > 2


@pytest.mark.parametrize("query", ["mean", "class"])
def test_the_mask_of_tokens_covers_as_many_as_stay(query: str) -> None:
    """Squares of 2 x 2 on 8 x 8 are 16 tokens; half of them, and half of these again before a later block."""
    backbone = VisionTransformer(patch=(2,), width=(8,), depth=(3,), heads=(2,), query=(query,))
    network, x = member(backbone, TokenPruning(placement=("all",), shares=((0.5, 1.0),)), IMAGE)
    ahead = int(query == "class")
    whole = 16 + ahead
    first = kept_of(whole, 0.5, query)
    fused = sum(getattr(module, "fuse", False) for module in network.modules()) > 0
    second = kept_of(first + fused, 0.5, query)
    for each in seen(network, x[:4], {"token_pruning": -1.0}):
        assert set(np.unique(each.mask)) == {0.0, 1.0}
        assert each.mask.sum() / 4 in {second - ahead, second - ahead - 1} if fused else {second - ahead}
    assert all(each.mask.all() for each in seen(network, x[:4]))


@pytest.mark.parametrize("query", ["mean", "class"])
def test_the_mask_of_merged_tokens_adds_up_to_those_left(query: str) -> None:
    """Squares of 2 x 2 on 8 x 8 are 16 tokens; each token that is left gets 1, divided among the squares in it."""
    backbone = VisionTransformer(patch=(2,), width=(8,), depth=(3,), heads=(2,), query=(query,))
    network, x = member(backbone, TokenMerging(placement=("all",), shares=((0.5, 1.0),)), IMAGE)
    left = 4  # 16 become 8, and 8 become 4; a class token is merged with nobody
    for each in seen(network, x[:4], {"token_merging": -1.0}):
        assert each.what == "merged"
        assert each.mask.sum() / 4 == pytest.approx(left)
    assert all(each.mask.all() for each in seen(network, x[:4]))


def test_the_mask_of_looks_is_what_they_fell_on() -> None:
    network, x = member(SMALL, GlanceAndFocus(looks=(2,), grid=(3,)), IMAGE)
    assert masks_of(network) == "patches"
    (patches,) = {tuple(module.patch) for module in network.modules() if isinstance(module, Patches)}
    for each in seen(network, x[:4]):
        assert patches[0] * patches[1] < each.mask.sum() <= 2 * patches[0] * patches[1]  # two places, which may overlap
    glance = looked_at(network, x[:1], Policy.single(network.exits, 0))
    assert (glance.exit_taken, glance.mask.sum()) == (0, 0.0)


READERS = (  # and where their knob stands when little is read
    (SkipUpdate(placement=("all",)), -50.0),
    (FrameSelection(placement=("all",), keep=((0.5, 1.0),)), -1.0),
)


@pytest.mark.parametrize(("family", "little"), READERS, ids=("skip_update", "frame_selection"))
def test_the_mask_of_chunks_is_what_was_read(family: AbstractFamily, little: float) -> None:
    """Six steps in two chunks of three: a chunk that was read is three steps."""
    network, x = member(Recurrent(width=(6,), chunks=(2,)), family, SEQUENCE)
    assert masks_of(network) == "steps"
    counts = set()
    for setting in ({family.name: little}, {}):
        for each in seen(network, x, setting):
            # branch.k.0 leaves the chunk out, which is a part as well
            read = sum(each.ran.get(f"branch.{chunk}.1", 0) > 0 for chunk in (0, 1))
            assert each.mask.sum() == 3 * read
            assert each.mask.reshape(2, 3).std(1).max() == 0
            counts.add(read)
    assert len(counts) > 1


def test_what_left_early_was_not_read_to_its_end() -> None:
    network, x = member(Recurrent(width=(6,), chunks=(2,)), EarlyExit(min_exits=1, max_exits=1), SEQUENCE)
    early = looked_at(network, x[:1], Policy.single(1, 0))
    assert early.mask.tolist() == [1, 1, 1, 0, 0, 0]
    assert looked_at(network, x[:1], Policy.never(1)).mask.all()


def test_a_plain_network_looks_at_everything() -> None:
    network, x = member(SMALL, EarlyExit(min_exits=1), IMAGE)
    assert masks_of(network) == "everything"
    assert next(seen(network, x)).mask.all()
