"""Signatures of all kinds, examples of their inputs, and their normalisation by hand."""

from __future__ import annotations

import pytest
import torch

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbones import BACKBONES, InvertedResidual, Residual
from dynarch.spaces.errors import ShapeError, SpecError
from dynarch.spaces.normalize import Normalize
from dynarch.spaces.signature import KINDS, Signature, ramp_input, random_inputs, require_kind
from dynarch.spaces.space import Space, build

TEXT = Signature((5,), 2, "text", 4)
SEQUENCE = Signature((4, 3), 2, "sequence")
CLIP = Signature((2, 3, 4, 4), 2, "clip")


def test_manifests_without_a_kind_are_of_images() -> None:
    assert Signature.from_mapping({"input_shape": [1, 8, 8], "classes": 10}) == Signature((1, 8, 8), 10, "image", None)
    for signature in (TEXT, SEQUENCE, CLIP):
        assert Signature.from_mapping(signature.to_mapping()) == signature


@pytest.mark.parametrize(
    ("shape", "kind", "vocabulary", "path", "words"),
    [
        ((8,), "txt", None, "kind", "did you mean 'text'"),
        ((8,), "text", None, "vocabulary", "be 3 or more, got None"),
        ((8,), "text", 2, "vocabulary", "be 3 or more, got 2"),
        ((8, 2), "text", 9, "input_shape", "of a text must be ids, but got (8, 2)"),
        ((8,), "sequence", None, "input_shape", "of a sequence must be steps x (1 + channels), but got (8,)"),
        ((8, 1), "sequence", None, "input_shape", "at least one channel a step, but got (8, 1)"),
        ((8, 2), "sequence", 9, "vocabulary", "is for texts only, but the kind is 'sequence'"),
        ((1, 8, 8), "clip", None, "input_shape", "frames x channels x height x width, but got (1, 8, 8)"),
        ((1, 8, 8), "image", 9, "vocabulary", "is for texts only"),
    ],
)
def test_impossible_signatures_name_the_field(
    shape: tuple[int, ...], kind: str, vocabulary: int | None, path: str, words: str
) -> None:
    with pytest.raises(SpecError) as caught:
        Signature(shape, 2, kind, vocabulary)
    assert caught.value.path == path
    assert words in str(caught.value)


def test_the_example_is_whole_and_ordinary() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    # Four ids of which 0 is padding: 1, 2, 3, and again from 1.
    assert ramp_input(TEXT, like).tolist() == [[1, 2, 3, 1, 2]]
    sequence = ramp_input(SEQUENCE, like)
    assert sequence[..., 0].tolist() == [[1, 1, 1, 1]]
    # Twelve numbers from -1 to 1, every third replaced by the presence.
    assert sequence[0, 0, 1:].tolist() == pytest.approx([-9 / 11, -7 / 11])
    for signature in (TEXT, SEQUENCE, CLIP, Signature((1, 2, 2), 2)):
        x = ramp_input(signature, like)
        assert x.shape == (1, *signature.input_shape)
        assert x.dtype == torch.float64
    assert ramp_input(Signature((1, 1, 3), 2), like).tolist() == [[[[-1, 0, 1]]]]


def test_random_inputs_keep_the_rules_of_their_kind() -> None:
    generator = torch.Generator().manual_seed(0)
    text = random_inputs(TEXT, 200, generator)
    assert set(text.flatten().tolist()) == {0, 1, 2, 3}
    assert bool((text[:, 0] > 0).all()), "no text is empty"
    assert bool(((text[:, 1:] > 0) <= (text[:, :-1] > 0)).all()), "padding is at the end"
    sequence = random_inputs(SEQUENCE, 200, generator)
    present = sequence[..., 0]
    assert set(present.sum(1).tolist()) == {1, 2, 3, 4}
    assert bool((present[:, 1:] <= present[:, :-1]).all())
    assert not sequence[present == 0].any()
    assert random_inputs(CLIP, 3, generator).shape == (3, 2, 3, 4, 4)
    again = random_inputs(TEXT, 200, torch.Generator().manual_seed(0))
    assert torch.equal(text, again)


def test_texts_pass_the_normalisation() -> None:
    layer, x = Normalize(TEXT), random_inputs(TEXT, 4)
    layer.fit(x)
    assert torch.equal(layer(x), x)


def test_present_steps_are_normalised_and_padding_stays() -> None:
    # Two channels; present steps hold 1, 3, 5 and 10, 10, 40: means 3 and 20, deviations 2 and sqrt(900 / 3).
    x = torch.tensor([[[1.0, 1, 10], [1, 3, 10]], [[1, 5, 40], [0, 0, 0]]])
    layer = Normalize(Signature((2, 3), 2, "sequence"))
    layer.fit(x)
    a, b = 10 / 300**0.5, 20 / 300**0.5
    expected = torch.tensor([[[1, -1, -a], [1, 0, -a]], [[1, 1, b], [0, 0, 0]]])
    torch.testing.assert_close(layer(x), expected)


def test_clips_are_normalised_by_channel() -> None:
    x = torch.zeros(2, 2, 3, 4, 4)
    x[:, 0, 1], x[:, 1, 1], x[:, :, 2] = 1, 3, 7  # channel 1 is 1 in the first frames, 3 in the second
    layer = Normalize(CLIP)
    layer.fit(x)
    assert layer.mean.flatten().tolist() == [0, 2, 7]
    # 64 values at distance 1 from their mean.
    assert layer.std.flatten().tolist() == pytest.approx([1e-3, (64 / 63) ** 0.5, 1e-3])
    assert layer(x)[0, :, 1, 0, 0].tolist() == pytest.approx([-((63 / 64) ** 0.5), (63 / 64) ** 0.5])


def test_backbones_are_asked_for_their_kind() -> None:
    require_kind(TEXT, ("image", "text"), "mixed")
    with pytest.raises(ShapeError, match="still takes inputs of kind image or clip, but these are of kind text"):
        require_kind(TEXT, ("image", "clip"), "still")


@pytest.mark.parametrize("kind", KINDS)
def test_a_space_that_names_no_backbones_holds_those_that_fit(kind: str) -> None:
    signature = next(each for each in (TEXT, SEQUENCE, CLIP, Signature((1, 8, 8), 2)) if each.kind == kind)
    fitting = [each for each in BACKBONES if kind in each.kinds]
    if fitting:
        space = Space().fitted(signature)
        assert space.backbones == tuple(each() for each in fitting)
        assert {each.backbone["name"] for each in space.baselines(signature)} == {each.name for each in fitting}
        assert space.to_mapping()["backbones"].keys() == {each.name for each in fitting}
        assert space.fitted(signature) is space
    else:
        with pytest.raises(SpecError, match=f"no backbone takes inputs of kind '{kind}'"):
            Space().fitted(signature)
    assert "backbones" not in Space().to_mapping()


def test_a_backbone_of_another_kind_is_refused_with_its_place() -> None:
    space = Space((Residual(), InvertedResidual()))
    with pytest.raises(SpecError, match="does not take inputs of kind 'text'") as caught:
        space.size(TEXT)
    assert caught.value.path == "backbones.residual"
    architecture = next(iter(space.baselines(Signature((1, 8, 8), 2))))
    with pytest.raises(SpecError, match="'residual' does not take inputs of kind 'clip'") as caught:
        build(Architecture.from_mapping(architecture.to_mapping()), CLIP)
    assert caught.value.path == "architecture.backbone.name"
