"""Choice step: a gate picks, for each input, one of several branches; the others do not run."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from .decider import Decider
from .exports import Exports, Op
from .gate import GateUnit
from .gradient import AbstractGradient
from .runnable import Picking, gate_op
from .step import AbstractStep, Routing, Simulation
from .trace import COMPACT, Part, PartInfo


@final
@dataclass(frozen=True)
class Branch:
    """One way through a choice.

    Args:
        module: `b x ...` -> `b x ...`; None hands the features on as they are, and costs nothing.
        work: share of the work of the dearest branch, for the knob: it tilts the choice towards dear branches.
        token: equal tokens promise equal work on equal features.
    """

    module: nn.Module | None
    work: float
    token: Hashable = None


@final
class ChoiceStep(AbstractStep):
    """Gate, then one branch for each input.

    The branch with the largest logit runs; a knob tilts the logits towards dear branches or away from them.

    Args:
        index: number of the choice in the network.
        gate: unit of this place.
        branches: by rising work, that of the last being 1.
        gradient: how training passes through the choice.
        knob: name of the knob, shared by all choices of a family; None where no branch is dearer than another.
        place: where in the network the choice is, from 0 to 1.
        balance: factor of the loss that keeps all branches in use.
        explore: share of the inputs that take a branch at random when training begins.
        informed: factor of the reward for decisions that tell inputs apart.
    """

    def __init__(
        self,
        index: int,
        gate: GateUnit,
        branches: Sequence[Branch],
        *,
        gradient: AbstractGradient,
        knob: str | None,
        place: float,
        balance: float = 0.0,
        explore: float = 0.0,
        informed: float = 0.0,
    ) -> None:
        super().__init__()
        self.index = index
        self.knob = knob
        works = tuple(each.work for each in branches)
        self.decider = Decider(
            gate, works, gradient=gradient, knob=knob, place=place, balance=balance, explore=explore, informed=informed
        )
        self.branches = nn.ModuleList(nn.Identity() if each.module is None else each.module for each in branches)
        self.idle = tuple(each.module is None for each in branches)
        self.tokens = tuple(each.token for each in branches)
        self.gate_name = f"gate.{index}"
        self.branch_names = tuple(f"branch.{index}.{j}" for j in range(len(branches)))
        self.move_names = tuple(f"move.{index}.{j}" for j in range(len(branches)))

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """Gate with its decision, branches that compute, and for batches the gathering of each branch's inputs."""
        features, at = run.features, f"choice.{self.index}"
        shape = tuple(features.shape[1:])
        inputs, deciding = self.decider.inputs(features, run.memory), self.decider.part_token(shape)
        parts = [Part(PartInfo(self.gate_name, "gate", self.depth), self.decider.gating, inputs, deciding)]
        for j, branch in enumerate(self.branches):
            if not self.idle[j]:
                assert isinstance(branch, nn.Module)
                info = PartInfo(self.branch_names[j], "branch", self.depth, choice=at)
                token = None if self.tokens[j] is None else ("branch", self.tokens[j], shape)
                parts.append(Part(info, branch, (features,), token))
        made = self.branches[-1](features)  # all branches change the shape alike
        moving = (COMPACT, "move", shape, tuple(made.shape[1:]))
        for j, name in enumerate(self.move_names):
            if not self.idle[j]:
                info = PartInfo(name, COMPACT, self.depth, choice=f"{at}.move")
                parts.append(Part(info, Move(), (features, made), moving))
        return tuple(parts)

    def names(self) -> tuple[str, ...]:
        """Gate, branches that compute, and the gathering of their inputs."""
        ways = zip(self.branch_names, self.move_names, self.idle, strict=True)
        return (self.gate_name, *(name for *both, idle in ways if not idle for name in both))

    def watched(self) -> Mapping[str, nn.Module]:
        """The gate and the branches that compute."""
        ways = zip(self.branch_names, self.branches, self.idle, strict=True)
        return {self.gate_name: self.decider.gate, **{name: branch for name, branch, idle in ways if not idle}}

    def simulate(self, run: Simulation) -> None:
        """Run all branches for everybody and keep of each input the one that was picked."""
        weights = self.decider.weights(self.decider.logits(run.features, run.memory, run.setting), run)
        mixed: Tensor | None = None
        for j, branch in enumerate(self.branches):
            made = branch(run.features)
            term = made * weights[:, j].view(-1, *[1] * (made.dim() - 1))
            mixed = term if mixed is None else mixed + term
            if not self.idle[j]:
                run.usage[self.branch_names[j]] = run.usage[self.move_names[j]] = weights[:, j]
        assert mixed is not None
        run.features = mixed

    def route(self, run: Routing) -> None:
        """One input runs its branch; of a batch, each branch runs for the inputs that picked it."""
        run.record(self.gate_name)
        features = run.features
        picked = self.decider.pick(self.decider.logits(features, run.memory, run.setting))
        if isinstance(picked, int):
            run.features = self._run(run, picked, features, None)
            return
        groups = [(picked == j).nonzero().flatten() for j in range(len(self.idle))]
        used = [j for j, rows in enumerate(groups) if rows.numel()]
        if len(used) == 1:
            run.features = self._run(run, used[0], features, None)
            return
        out: Tensor | None = None
        for j in used:
            made = self._run(run, j, features.index_select(0, groups[j]), groups[j])
            if out is None:
                out = made.new_empty(features.shape[0], *made.shape[1:])
            out.index_copy_(0, groups[j], made)
        assert out is not None
        run.features = out

    def _run(self, run: Routing, j: int, features: Tensor, rows: Tensor | None) -> Tensor:
        if self.idle[j]:
            return features
        run.record(self.branch_names[j], rows)
        if rows is not None:
            run.record(self.move_names[j], rows)
        made: Tensor = self.branches[j](features)
        return made

    def export(self, run: Simulation, exports: Exports) -> list[Op]:
        """The gate, and each branch that computes."""
        picking = Picking(self.decider, exports.setting)
        gate = gate_op(exports, self.gate_name, picking, self.decider.unit, run)
        branches = [
            None if idle else exports.program(name, branch, run.features)
            for name, branch, idle in zip(self.branch_names, self.branches, self.idle, strict=True)
        ]
        return [{"op": "choice", "gate": gate, "branches": branches}]


@final
class Move:
    """The gathering of some inputs and the writing back of what was made of them, for the stopwatch."""

    def __call__(self, features: Tensor, made: Tensor) -> object:
        rows = torch.arange(features.shape[0], device=features.device)
        given = features.index_select(0, rows)
        out = torch.empty_like(made)
        return given, out.index_copy_(0, rows, made)
