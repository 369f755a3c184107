"""Gated blocks: how a family puts choices in the place of blocks, and which blocks it may take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from .choice_step import Branch, ChoiceStep
from .gate import GateUnit
from .gates import GATES, gate
from .gating import GatingChoice
from .plan import Plan
from .policy_step import PolicyStep
from .resource import ResourceChoice, ResourceTarget
from .spec import require
from .views import seen, seen_token

PLACEMENTS = ("all", "alternate", "late")
EXPLORE = 0.5  # enough for every branch to learn before the gates settle
INFORMED = 0.1  # keeps gates from being always open or always shut; 0.3 costs accuracy, see docs/benchmarks.md
OPENING = 2.0  # logits by which the dearest branch is ahead at first: it runs for 88 of 100 inputs under noise


def placed(blocks: Sequence[int], placements: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The different sets of blocks that placements give, under the name of the first that gives each.

    `all` takes every block, `alternate` every second one with the last among them, `late` the second half.
    """
    made: dict[str, tuple[int, ...]] = {}
    for name in placements:
        chosen = {"all": blocks, "alternate": blocks[::-1][::2][::-1], "late": blocks[len(blocks) // 2 :]}[name]
        if chosen and tuple(chosen) not in made.values():
            made[name] = tuple(chosen)
    return made


def check_blocks(blocks: Sequence[int]) -> None:
    """Raise unless there are blocks, and they ascend from 0 on."""
    require(len(blocks) > 0, "blocks", "must name at least one block")
    ascending = list(blocks) == sorted(set(blocks)) and blocks[0] >= 0
    require(ascending, "blocks", f"must ascend from 0, got {list(blocks)}")


def require_blocks(blocks: Sequence[int], allowed: Sequence[int], why: str) -> None:
    """Raise unless all `blocks` are allowed; `why` says what the allowed ones have in common."""
    for index, block in enumerate(blocks):
        known = ", ".join(map(str, allowed)) or "there are none"
        require(block in allowed, f"blocks.{index}", f"must be a block that {why} ({known}), but got {block}")


def put_gates(
    plan: Plan, blocks: Sequence[int], gating: GatingChoice, *, branches: int, opening: float
) -> tuple[GateUnit, ...]:
    """Gates that read what the backbone shows before each block; what prepares their memory becomes a step of the plan.

    Raises:
        SpecError: if such gates cannot read that.
    """
    outline, view = plan.outline, plan.backbone.peek
    kind, places = gate(gating.gate), [outline.peeked(block) for block in blocks]
    for shape in (outline.peeked(0), *places):
        known = ", ".join(member.name for member in GATES if member.fits(shape)) or "none does"
        message = f"must fit what gates see here, {shape} ({known}), but got {gating.gate!r}"
        require(kind.fits(shape), "gating.gate", message)
    gates = kind.build(outline.peeked(0), places, branches, opening)
    if gates.first is not None:
        plan.insert_first(PolicyStep(_behind(view, gates.first)))
    return tuple(_behind(view, unit) for unit in gates.units)


def _behind(view: nn.Module, unit: GateUnit) -> GateUnit:
    return replace(unit, module=seen(view, unit.module), token=seen_token(view, str(unit.token)))


def put_choices(
    plan: Plan,
    blocks: Sequence[int],
    branches: Callable[[nn.Module], Sequence[Branch]],
    gating: GatingChoice,
    *,
    knob: str | None,
    target: ResourceChoice | None = None,
    opening: float = OPENING,
    balance: float = 0.0,
    explore: float = 0.0,
) -> None:
    """Put a choice in the place of each block.

    Args:
        plan: to edit.
        blocks: ascending.
        branches: what a block becomes, by rising work.
        gating: who decides.
        knob: name of the number that moves all gates at run time; None: there is none.
        target: what training charges for.
        opening: logit by which the last branch is ahead at first.
        balance: factor of the loss that keeps all branches in use.
        explore: share of the inputs that take a branch at random when training begins.
    """
    made = [branches(plan.block(block)) for block in blocks]
    groups = []
    units = put_gates(plan, blocks, gating, branches=len(made[0]), opening=opening)
    for index, (block, unit, ways) in enumerate(zip(blocks, units, made, strict=True)):
        step = ChoiceStep(
            index,
            unit,
            ways,
            gradient=gating.estimator(),
            knob=knob,
            place=(index + 1) / len(blocks),
            balance=balance,
            explore=explore,
            informed=INFORMED,
        )
        plan.replace(block, step)
        groups.append(tuple(name for name, way in zip(step.branch_names, ways, strict=True) if way.work > 0))
    if target is not None:
        plan.charge(ResourceTarget(tuple(groups), target))
