"""Choice step: a gate picks, for each input, one of several branches; the others do not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from .gate import GateUnit
from .gradient import AbstractGradient, Draw, one_hot
from .step import AbstractStep, Routing, Simulation
from .trace import COMPACT, Part, PartInfo


@final
@dataclass(frozen=True)
class Branch:
    """One way through a choice.

    Args:
        module: `b x ...` -> `b x ...`; None hands the features on as they are, and costs nothing.
        work: share of the work of the dearest branch, for the knob: it tilts the choice towards dear branches.
    """

    module: nn.Module | None
    work: float


@final
class ChoiceStep(AbstractStep):
    """Gate, then one branch for each input.

    The branch with the largest logit runs. A knob `s` adds `s * work` to the logit of each branch: above 0 more is
    spent, below 0 less, and no weight changes.

    Args:
        index: number of the choice in the network.
        gate: unit of this place.
        branches: by rising work, that of the last being 1.
        gradient: how training passes through the choice.
        knob: name of the knob, shared by all choices of a family.
        place: where in the network the choice is, from 0 to 1.
        scaled: multiply what a branch gives by its probability, so that the gate learns from the task alone.
        balance: factor of the loss that keeps all branches in use.
    """

    works: Tensor

    def __init__(
        self,
        index: int,
        gate: GateUnit,
        branches: Sequence[Branch],
        *,
        gradient: AbstractGradient,
        knob: str,
        place: float,
        scaled: bool = False,
        balance: float = 0.0,
    ) -> None:
        super().__init__()
        self.index = index
        self.knob = knob
        self.unit = gate
        self.gate = gate.module
        self.branches = nn.ModuleList(nn.Identity() if each.module is None else each.module for each in branches)
        self.idle = tuple(each.module is None for each in branches)
        self.register_buffer("works", torch.tensor([each.work for each in branches]), persistent=False)
        self.gradient = gradient
        self.place = place
        self.scaled = scaled
        self.balance = balance
        self.gate_name = f"gate.{index}"
        self.branch_names = tuple(f"branch.{index}.{j}" for j in range(len(branches)))
        self.move_names = tuple(f"move.{index}.{j}" for j in range(len(branches)))

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """Gate with its decision, branches that compute, and for batches the gathering of each branch's inputs."""
        features, at = run.features, f"choice.{self.index}"
        shape = tuple(features.shape[1:])
        state = self._state(features, run.memory)
        inputs = (features,) if state is None else (features, state)
        token = ("gate", self.unit.token, len(self.idle), shape, self.scaled)
        parts = [Part(PartInfo(self.gate_name, "gate", self.depth), self.gating, inputs, token)]
        for j, branch in enumerate(self.branches):
            if not self.idle[j]:
                assert isinstance(branch, nn.Module)
                info = PartInfo(self.branch_names[j], "branch", self.depth, choice=at)
                parts.append(Part(info, branch, (features,), ("branch", id(branch), shape)))
        made = self.branches[-1](features)  # all branches change the shape alike
        moving = (COMPACT, "move", shape, tuple(made.shape[1:]))
        for j, name in enumerate(self.move_names):
            if not self.idle[j]:
                info = PartInfo(name, COMPACT, self.depth, choice=f"{at}.move")
                parts.append(Part(info, _Move(), (features, made), moving))
        return tuple(parts)

    def watched(self) -> Mapping[str, nn.Module]:
        """The gate and the branches that compute."""
        ways = zip(self.branch_names, self.branches, self.idle, strict=True)
        return {self.gate_name: self.gate, **{name: branch for name, branch, idle in ways if not idle}}

    def logits(self, features: Tensor, memory: dict[str, Tensor], setting: float) -> Tensor:
        """`b x k` with the knob at `setting`; the memory is brought up to date."""
        state = self._state(features, memory)
        if state is None:
            made: Tensor = self.gate(features)
        else:
            assert self.unit.memory is not None
            made, memory[self.unit.memory] = self.gate(features, state)
        return made + setting * self.works

    def _state(self, features: Tensor, memory: dict[str, Tensor]) -> Tensor | None:
        if self.unit.memory is None:
            return None
        state = memory.get(self.unit.memory)
        return self.unit.start(features) if state is None else state

    def simulate(self, run: Simulation) -> None:
        """Run all branches for everybody and keep of each input the one that was picked."""
        logits = self.logits(run.features, run.memory, run.setting.get(self.knob or "", 0.0))
        weights = self._decide(logits, run)
        scale = logits.softmax(1) if self.scaled else None
        mixed: Tensor | None = None
        for j, branch in enumerate(self.branches):
            weight = weights[:, j]
            made = branch(run.features)
            factor = weight if scale is None else weight * scale[:, j]
            term = made * factor.view(-1, *[1] * (made.dim() - 1))
            mixed = term if mixed is None else mixed + term
            if not self.idle[j]:
                run.usage[self.branch_names[j]] = run.usage[self.move_names[j]] = weight
        assert mixed is not None
        run.features = mixed

    def _decide(self, logits: Tensor, run: Simulation) -> Tensor:
        """`b x k`, one-hot in value."""
        if run.progress is None:
            gaps = (logits.diff(dim=1) / self.works.diff().clamp_min(1e-6)).detach()
            run.margins.setdefault(self.knob or "", []).extend(gaps.unbind(1))
            picked = logits.argmax(1)
            if run.shuffle is not None:
                order = torch.randperm(len(picked), generator=run.shuffle, device=run.shuffle.device)
                picked = picked[order.to(picked.device)]
            return one_hot(picked, logits)
        draw: Draw = self.gradient.draw(logits, progress=run.progress, place=self.place, generator=run.generator)
        if draw.log_prob is not None:
            run.log_probs.append(draw.log_prob)
        if self.balance:
            run.penalties.append(self.balance * load_balance(draw.weights.detach(), logits.softmax(1)))
        return draw.weights

    def route(self, run: Routing) -> None:
        """One input runs its branch; of a batch, each branch runs for the inputs that picked it."""
        run.record(self.gate_name)
        features = run.features
        picked, scale = self._pick(self.logits(features, run.memory, run.setting.get(self.knob or "", 0.0)))
        if isinstance(picked, int):
            run.features = self._run(run, picked, features, None, scale)
            return
        groups = [(picked == j).nonzero().flatten() for j in range(len(self.idle))]
        used = [j for j, rows in enumerate(groups) if rows.numel()]
        if len(used) == 1:
            run.features = self._run(run, used[0], features, None, scale)
            return
        out: Tensor | None = None
        for j in used:
            rows = groups[j]
            given = features.index_select(0, rows)
            made = self._run(run, j, given, rows, None if scale is None else scale.index_select(0, rows))
            if out is None:
                out = made.new_empty(features.shape[0], *made.shape[1:])
            out.index_copy_(0, rows, made)
        assert out is not None
        run.features = out

    def _pick(self, logits: Tensor) -> tuple[int | Tensor, Tensor | None]:
        """The branch of a single input (a join of host and device) or of each of many, and what scales it."""
        scale = logits.softmax(1) if self.scaled else None
        picked = logits.argmax(1)
        return (int(picked.item()) if logits.shape[0] == 1 else picked), scale

    def gating(self, features: Tensor, state: Tensor | None = None) -> object:
        """The gate and its decision as routed mode makes them, for the stopwatch."""
        memory = {} if state is None or self.unit.memory is None else {self.unit.memory: state}
        picked, scale = self._pick(self.logits(features, memory, 0.0))
        if isinstance(picked, int):
            return picked, scale
        return [(picked == j).nonzero() for j in range(len(self.idle))], scale

    def _run(self, run: Routing, j: int, features: Tensor, rows: Tensor | None, scale: Tensor | None) -> Tensor:
        made = features
        if not self.idle[j]:
            run.record(self.branch_names[j], rows)
            if rows is not None:
                run.record(self.move_names[j], rows)
            made = self.branches[j](features)
        return made if scale is None else made * scale[:, j].view(-1, *[1] * (made.dim() - 1))


def load_balance(weights: Tensor, probabilities: Tensor) -> Tensor:
    """1 where all branches are picked equally often, up to `k` where one takes all.

    Args:
        weights: `b x k`, one-hot.
        probabilities: `b x k`.

    Source: Fedus, Zoph, Shazeer, "Switch Transformers", JMLR 2022.
    """
    return weights.shape[1] * (weights.mean(0) * probabilities.mean(0)).sum()


@final
class _Move:
    """The gathering of a branch's inputs and the writing back of what it made, for the stopwatch."""

    def __call__(self, features: Tensor, made: Tensor) -> object:
        rows = torch.arange(features.shape[0], device=features.device)
        given = features.index_select(0, rows)
        out = torch.empty_like(made)
        return given, out.index_copy_(0, rows, made)
