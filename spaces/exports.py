"""Exports: what a trained network needs at run time, away from dynarch.

A network that leaves is a *routing program*: a list of operations in plain JSON, which a small runner follows, and the
*programs* that they name, modules that are exported one by one. Each step says its own operations. A policy is baked
in: what it never runs (an exit that is not tried, the levels that no knob stands at) is not exported.

The operations; `x` is the features, every other name a slot of the memory that steps hand on:

    run      program, takes, gives, zeros      gives = program(*takes); `zeros`: size of slots that may not exist yet
    keep     as                                x is also kept in a slot
    answer   program, exit                     everybody leaves
    exit     program, exit, threshold, takes, gives   (logits, score, *gives) = program(x, *takes); above it they leave
    choice   gate, branches                    each input runs the branch that its gate picked; null hands x on
    mixture  gate, branches                    each input runs some branches and sums them by the gate's weights
    read     program, drop, slot, column       where slot[:, column] > 0: program(x), elsewhere x[:, drop:]
    jump     program, drop, reach, gate        likewise where nothing is pending; whoever has read decides how far to go
    tile     gate, program, side, halo         the program on open tiles; the others stay as they are
    fork     gate, variants                    each input follows the list of steps that its gate picked

A gate is `{program, memory, size}`: with a memory it takes the slot as well, zeros before the first, and gives it anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from .errors import SpecError
from .policy import Policy
from .trace import within

Op = dict[str, Any]  # plain JSON


@final
@dataclass(frozen=True)
class Program:
    """A module that a routing program runs: tensors in, tensors out, rows independent of each other.

    Args:
        module: to export.
        examples: inputs at batch 1, each `1 x ...`.
    """

    module: nn.Module
    examples: tuple[Tensor, ...]


@final
class Exports:
    """Collects the programs that the steps of one network name.

    Args:
        policy: that is baked in.

    `variant` is the one of a fork that the steps stand under.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.setting: Mapping[str, float] = dict(policy.setting)
        self.programs: dict[str, Program] = {}
        self.variant: str | None = None

    def program(self, name: str, module: nn.Module, *examples: Tensor) -> str:
        """Add a program; the name that operations know it by."""
        known = within(name, self.variant)
        assert known not in self.programs, f"two programs are called {known}"
        self.programs[known] = Program(module, tuple(each.detach() for each in examples))
        return known


def not_exported(step: object) -> SpecError:
    """What to raise for a step that no operation describes."""
    name = type(step).__name__
    message = f"each step must say its operations, but {name} does not; give {name} an `export` (see spaces/exports.py)"
    return SpecError(f"export.{name}", message)


@final
@dataclass(frozen=True)
class Exported:
    """A network on its way out.

    Args:
        steps: the routing program.
        programs: name -> what to export.
    """

    steps: list[Op]
    programs: Mapping[str, Program]
