from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dynarch.spaces.backbone import Signature
from dynarch.spaces.backbones import Residual
from dynarch.spaces.distillation import Distillation, DistillationChoice, taught
from dynarch.spaces.errors import SpecError
from dynarch.spaces.exit_objectives import cross_entropies
from dynarch.spaces.families import EarlyExit, SqueezeExcitation
from dynarch.spaces.recipe import Recipe
from dynarch.spaces.scope import enumerate_points
from dynarch.spaces.space import Space, recipe_of
from dynarch.spaces.teacher import epochs_spent, teacher_of
from dynarch.tests import oracles

SIGNATURE = Signature((1, 8, 8), 4)
ALL = Distillation(kind=("none", "self", "teacher"), temperature=(1.0, 3.0), weight=(0.5, 0.9))
LABELS = torch.tensor([1])


def logits() -> list[Tensor]:
    return [
        torch.tensor([[3 * math.log(1 / 4), 3 * math.log(3 / 4)]], requires_grad=True),
        torch.zeros(1, 2, requires_grad=True),
    ]


def test_the_final_head_teaches_by_hand() -> None:
    made = logits()
    losses = taught(cross_entropies(made, LABELS), made, DistillationChoice("self", 3.0, 0.5))
    assert [loss.item() for loss in losses] == pytest.approx([oracles.PUPIL_LOSS, oracles.FINAL_LOSS], rel=1e-6)


def test_the_final_head_is_not_pulled_down_to_its_pupils() -> None:
    made = logits()
    torch.stack(taught(cross_entropies(made, LABELS), made, DistillationChoice("self", 3.0, 0.5))).sum().backward()  # type: ignore[no-untyped-call]
    pupil, teacher = made[0].grad, made[1].grad
    assert pupil is not None
    assert teacher is not None
    # Cross entropy alone: (p - y) with p = (1/2, 1/2), y = (0, 1).
    assert teacher.tolist()[0] == pytest.approx([1 / 2, -1 / 2])
    # Half the cross entropy: (1/28, -1/28) / 2. Half the divergence: softened (-1/4, 1/4) times 3**2 / 3.
    assert pupil.tolist()[0] == pytest.approx([1 / 56 - 3 / 8, -1 / 56 + 3 / 8], rel=1e-5)


def test_a_static_teacher_teaches_every_exit_by_hand() -> None:
    """The teacher says 1/2, 1/2: so does the final head, whose divergence is 0."""
    made = logits()
    choice = DistillationChoice("teacher", 3.0, 0.5)
    losses = taught(cross_entropies(made, LABELS), made, choice, torch.full((1, 2), 7.0))
    assert [loss.item() for loss in losses] == pytest.approx([oracles.PUPIL_LOSS, 0.5 * math.log(2)], rel=1e-6)


def test_equal_pupils_have_no_divergence() -> None:
    same = [torch.tensor([[1.0, 2.0, 3.0]])] * 3
    plain = cross_entropies(same, torch.tensor([2]))
    losses = taught(plain, same, DistillationChoice("self", 2.0, 1.0))
    assert [loss.item() for loss in losses] == pytest.approx([0, 0, plain[-1].item()], abs=1e-6)


@pytest.mark.parametrize(("exits", "size"), [(True, 1 + 4 + 4), (False, 1 + 4)])
def test_a_network_without_exits_has_nobody_to_teach(exits: bool, size: int) -> None:
    made = [choice for _, choice in enumerate_points(lambda scope: ALL.suggest(scope, exits=exits))]
    assert len(made) == len(set(made)) == ALL.size(exits=exits) == size
    assert {choice.kind for choice in made if choice is not None} == ({"self", "teacher"} if exits else {"teacher"})
    only = Distillation(kind=("self",))
    assert only.size(exits=False) == 1
    assert [c for _, c in enumerate_points(lambda scope: only.suggest(scope, exits=False))] == [None]


def test_the_size_of_a_space_counts_who_can_be_taught() -> None:
    space = Space(
        (Residual(width=(4,), depth=(1,), stages=2),),
        (EarlyExit(heads=("linear",), training=("equal",)), SqueezeExcitation(placement=("late",))),
        Recipe(learning_rate=(0.003, 0.01), distillation=ALL),
    )
    # One place for an exit, with or without excitation, two rates: 2 * 2 with an exit and 9 ways, 2 * 2 without and 5.
    made = [architecture for _, architecture in space.enumerate(SIGNATURE)]
    assert len(made) == len({each.id for each in made}) == space.size(SIGNATURE) == 4 * 9 + 4 * 5
    for each in made:
        assert space.replay(next(p for p, a in space.enumerate(SIGNATURE) if a == each), SIGNATURE) == each
    selfish = [each for each in made if (recipe_of(each).distillation or NOBODY).kind == "self"]
    assert len(selfish) == 16
    assert all("early_exit" in each.families for each in selfish)


NOBODY = DistillationChoice("teacher", 1.0, 1.0)


def test_the_teacher_is_the_static_network_of_the_backbone() -> None:
    space = Space(
        (Residual(width=(4,), depth=(1,), stages=2),),
        (EarlyExit(min_exits=1, heads=("linear",), training=("equal",)),),
        Recipe(distillation=Distillation(kind=("none", "self", "teacher"))),
    )
    found = {}
    for _, each in space.enumerate(SIGNATURE):
        choice = recipe_of(each).distillation
        found["none" if choice is None else choice.kind] = each
    assert teacher_of(found["none"]) is None
    assert teacher_of(found["self"]) is None
    static = teacher_of(found["teacher"])
    assert static is not None
    assert (static.backbone, static.families) == (found["teacher"].backbone, {})
    assert static.training == found["none"].training
    assert [epochs_spent(found[kind], 3, full=9) for kind in ("none", "self", "teacher")] == [3, 3, 12]
    assert epochs_spent(found["teacher"], 0, full=9) == 0


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: DistillationChoice("none", 1.0, 0.5), "kind"),
        (lambda: DistillationChoice("self", 0.0, 0.5), "temperature"),
        (lambda: DistillationChoice("self", 1.0, 0.0), "weight"),
        (lambda: Distillation(kind=("selfish",)), "kind.0"),
        (lambda: Distillation(temperature=(1.0, 1.0)), "temperature"),
        (lambda: Distillation(temperature=(1.0, -1.0)), "temperature.1"),
        (lambda: Distillation(weight=(0.5, 1.5)), "weight.1"),
        (lambda: Recipe.from_mapping({"distillation": {"kind": ["teachers"]}}), "distillation.kind.0"),
    ],
)
def test_impossible_ranges_name_the_field(make: Any, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert caught.value.path == path
