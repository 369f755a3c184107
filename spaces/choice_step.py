"""Choice step: a gate picks, for each input, one of several branches; the others do not run."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from .decider import information, load_balance
from .gate import GateUnit
from .gradient import AbstractGradient, one_hot, uniform
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

    The branch with the largest logit runs. A knob `s` adds `s * work` to the logit of each branch: above 0 more is
    spent, below 0 less, and no weight changes.

    Args:
        index: number of the choice in the network.
        gate: unit of this place.
        branches: by rising work, that of the last being 1.
        gradient: how training passes through the choice.
        knob: name of the knob, shared by all choices of a family; None where no branch is dearer than another.
        place: where in the network the choice is, from 0 to 1.
        balance: factor of the loss that keeps all branches in use.
        explore: share of the inputs that take a branch at random when training begins; it falls to 0 at half of it.
            Without it a branch that no input picks would never learn anything, and so never be picked.
        informed: factor of the reward for decisions that tell inputs apart. Without it a resource target is met by
            gates that are always open and others that are always shut: a smaller network, and a static one.
    """

    works: Tensor

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
        self.unit = gate
        self.gate = gate.module
        self.branches = nn.ModuleList(nn.Identity() if each.module is None else each.module for each in branches)
        self.idle = tuple(each.module is None for each in branches)
        self.tokens = tuple(each.token for each in branches)
        self.register_buffer("works", torch.tensor([each.work for each in branches]), persistent=False)
        self.gradient = gradient
        self.place = place
        self.balance = balance
        self.explore = explore
        self.informed = informed
        self.gate_name = f"gate.{index}"
        self.branch_names = tuple(f"branch.{index}.{j}" for j in range(len(branches)))
        self.move_names = tuple(f"move.{index}.{j}" for j in range(len(branches)))

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """Gate with its decision, branches that compute, and for batches the gathering of each branch's inputs."""
        features, at = run.features, f"choice.{self.index}"
        shape = tuple(features.shape[1:])
        state = self.unit.state(features, run.memory)
        inputs = (features,) if state is None else (features, state)
        deciding = ("gate", self.unit.token, len(self.idle), shape, self.knob is None)
        parts = [Part(PartInfo(self.gate_name, "gate", self.depth), self.gating, inputs, deciding)]
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
                parts.append(Part(info, _Move(), (features, made), moving))
        return tuple(parts)

    def watched(self) -> Mapping[str, nn.Module]:
        """The gate and the branches that compute."""
        ways = zip(self.branch_names, self.branches, self.idle, strict=True)
        return {self.gate_name: self.gate, **{name: branch for name, branch, idle in ways if not idle}}

    def logits(self, features: Tensor, memory: dict[str, Tensor], setting: Mapping[str, float]) -> Tensor:
        """`b x k` with the knob at its setting; the memory is brought up to date."""
        made = self.unit.logits(features, memory)
        return made if self.knob is None else made + setting.get(self.knob, 0.0) * self.works

    def simulate(self, run: Simulation) -> None:
        """Run all branches for everybody and keep of each input the one that was picked."""
        logits = self.logits(run.features, run.memory, run.setting)
        weights = self._decide(logits, run) if run.progress is None else self._train(logits, run, run.progress)
        mixed: Tensor | None = None
        for j, branch in enumerate(self.branches):
            made = branch(run.features)
            term = made * weights[:, j].view(-1, *[1] * (made.dim() - 1))
            mixed = term if mixed is None else mixed + term
            if not self.idle[j]:
                run.usage[self.branch_names[j]] = run.usage[self.move_names[j]] = weights[:, j]
        assert mixed is not None
        run.features = mixed

    def _decide(self, logits: Tensor, run: Simulation) -> Tensor:
        """`b x k`, one-hot, as at run time."""
        if self.knob is not None:
            run.margins.setdefault(self.knob, []).extend(self._margins(logits.detach()))
        picked = logits.argmax(1)
        if run.shuffle is not None:
            order = torch.randperm(len(picked), generator=run.shuffle, device=run.shuffle.device)
            picked = picked[order.to(picked.device)]
        return one_hot(picked, logits)

    def _margins(self, logits: Tensor) -> list[Tensor]:
        """For every two branches, by how much the knob may fall before the cheaper one is ahead; `b` each."""
        count, works = logits.shape[1], self.works
        pairs = [(i, j) for j in range(count) for i in range(j)]
        return [(logits[:, j] - logits[:, i]) / (works[j] - works[i]) for i, j in pairs]

    def _train(self, logits: Tensor, run: Simulation, progress: float) -> Tensor:
        """`b x k`, one-hot in value, with the gradient of the estimator."""
        draw = self.gradient.draw(logits, progress=progress, place=self.place, generator=run.generator)
        if self.balance:
            run.penalties.append(self.balance * load_balance(draw.weights.detach(), logits.softmax(1)))
        if self.informed:
            run.penalties.append(-self.informed * information(logits))
        if draw.log_prob is not None:
            run.log_probs.append(draw.log_prob)
            return draw.weights
        share = self.explore * max(0.0, 1 - 2 * progress)
        if share == 0:
            return draw.weights
        drawn = uniform(torch.Size((len(logits), 2)), logits, run.generator)
        anywhere = one_hot((drawn[:, 1] * logits.shape[1]).long(), logits)
        return torch.where((drawn[:, 0] < share)[:, None], anywhere, draw.weights)

    def route(self, run: Routing) -> None:
        """One input runs its branch; of a batch, each branch runs for the inputs that picked it."""
        run.record(self.gate_name)
        features = run.features
        picked = self._pick(self.logits(features, run.memory, run.setting))
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

    def _pick(self, logits: Tensor) -> int | Tensor:
        """The branch of a single input (a join of host and device), or of each of many."""
        picked = logits.argmax(1)
        return int(picked.item()) if logits.shape[0] == 1 else picked

    def gating(self, features: Tensor, state: Tensor | None = None) -> object:
        """The gate and its decision as routed mode makes them, for the stopwatch."""
        memory = {} if state is None or self.unit.memory is None else {self.unit.memory: state}
        picked = self._pick(self.logits(features, memory, {}))
        return picked if isinstance(picked, int) else [(picked == j).nonzero() for j in range(len(self.idle))]


@final
class _Move:
    """The gathering of a branch's inputs and the writing back of what it made, for the stopwatch."""

    def __call__(self, features: Tensor, made: Tensor) -> object:
        rows = torch.arange(features.shape[0], device=features.device)
        given = features.index_select(0, rows)
        out = torch.empty_like(made)
        return given, out.index_copy_(0, rows, made)
