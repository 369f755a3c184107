"""Mixture step: a gate picks, for each input, a few of several branches, and their weighted sum goes on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from .decider import load_balance
from .exports import Exports, Op
from .gate import GateUnit
from .gradient import AbstractGradient, one_hot, uniform
from .runnable import Weighing, gate_op
from .step import AbstractStep, Routing, Simulation
from .trace import COMPACT, Part, PartInfo

STEEPEST = 20.0  # difference of logits beyond which a weight is as good as 0


@final
class MixtureStep(AbstractStep):
    """Gate, then the `top` branches with the largest logits, weighted by the softmax of these logits.

    Args:
        index: number of the step in the network.
        gate: unit of this place.
        branches: of equal work.
        top: how many of them run for each input.
        gradient: how training passes through the choice.
        place: where in the network the step is, from 0 to 1.
        balance: factor of the loss that keeps all branches in use.
        explore: share of the inputs that take branches at random when training begins; it falls to 0 at half of it.
        token: equal tokens promise equal work on equal features.

    Source: Shazeer et al., "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer", ICLR
        2017 (weights renormalised over the branches that run).
    """

    def __init__(
        self,
        index: int,
        gate: GateUnit,
        branches: Sequence[nn.Module],
        *,
        top: int,
        gradient: AbstractGradient,
        place: float,
        balance: float = 0.0,
        explore: float = 0.0,
        token: Hashable = None,
    ) -> None:
        super().__init__()
        self.index = index
        self.unit = gate
        self.gate = gate.module
        self.branches = nn.ModuleList(branches)
        self.top = top
        self.gradient = gradient
        self.place = place
        self.balance = balance
        self.explore = explore
        self.token = token
        self.gate_name, self.mix_name = f"gate.{index}", f"mix.{index}"
        self.branch_names = tuple(f"branch.{index}.{j}" for j in range(len(branches)))
        self.move_names = tuple(f"move.{index}.{j}" for j in range(len(branches)))

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """Gate with its decision, branches, the weighted sum, and for batches the gathering of a branch's inputs."""
        features, at = run.features, f"choice.{self.index}"
        shape = tuple(features.shape[1:])
        state = self.unit.state(features, run.memory)
        inputs = (features,) if state is None else (features, state)
        deciding = ("gate", self.unit.token, len(self.branches), shape, self.top)
        parts = [Part(PartInfo(self.gate_name, "gate", self.depth), self.gating, inputs, deciding)]
        for name, branch in zip(self.branch_names, self.branches, strict=True):
            info = PartInfo(name, "branch", self.depth, choice=at, at_most=self.top)
            token = None if self.token is None else ("branch", self.token, shape)
            parts.append(Part(info, branch, (features,), token))
        made = self.branches[0](features)
        after = tuple(made.shape[1:])
        mixing = Part(PartInfo(self.mix_name, "mix", self.depth), _mix, (made,) * self.top, ("mix", self.top, after))
        for name in self.move_names:
            info = PartInfo(name, COMPACT, self.depth, choice=f"{at}.move", at_most=self.top)
            parts.append(Part(info, _gather_and_add, (features, made), (COMPACT, "add", shape, after)))
        return (*parts, mixing)

    def names(self) -> tuple[str, ...]:
        """Gate, branches, the gathering of their inputs, the weighted sum."""
        return (self.gate_name, *self.branch_names, *self.move_names, self.mix_name)

    def watched(self) -> Mapping[str, nn.Module]:
        """The gate and the branches."""
        return {self.gate_name: self.gate, **dict(zip(self.branch_names, self.branches, strict=True))}

    def simulate(self, run: Simulation) -> None:
        """Run all branches for everybody and add up those that were picked."""
        logits = self.unit.logits(run.features, run.memory, asked=self.gate)
        if run.progress is None:
            weights, chosen = self._decide(logits, run)
        else:
            chosen = self._train(logits, run, run.progress)
            weights = shares(logits, chosen)
        total: Tensor | None = None
        for j, branch in enumerate(self.branches):
            made = branch(run.features)
            term = made * weights[:, j].view(-1, *[1] * (made.dim() - 1))
            total = term if total is None else total + term
            run.usage[self.branch_names[j]] = run.usage[self.move_names[j]] = chosen[:, j]
        assert total is not None
        run.features = total

    def _decide(self, logits: Tensor, run: Simulation) -> tuple[Tensor, Tensor]:
        """Weights and picks, `b x k` each, as at run time."""
        values, picked = self._pick(logits)
        weights = torch.zeros_like(logits).scatter(1, picked, values)
        chosen = torch.zeros_like(logits).scatter(1, picked, 1.0)
        if run.shuffle is not None:
            order = torch.randperm(len(logits), generator=run.shuffle, device=run.shuffle.device).to(logits.device)
            weights, chosen = weights[order], chosen[order]
        return weights, chosen

    def _pick(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the branches that run, `b x top` each."""
        values, picked = logits.topk(self.top, dim=1)
        return values.softmax(1), picked

    def _train(self, logits: Tensor, run: Simulation, progress: float) -> Tensor:
        """`b x k`, 1 for the branches that run, with the gradient of the estimator; drawn one after the other."""
        chosen = torch.zeros_like(logits)
        left = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)  # b x branches not drawn
        for _ in range(self.top):
            draw = self.gradient.draw(
                logits.gather(1, left), progress=progress, place=self.place, generator=run.generator
            )
            chosen = chosen.scatter_add(1, left, draw.weights)
            if draw.log_prob is not None:
                run.log_probs.append(draw.log_prob)
            gone = one_hot(draw.weights.argmax(1), draw.weights)
            left = left[gone == 0].view(len(logits), -1)
        if self.balance:
            run.penalties.append(self.balance * load_balance(chosen.detach() / self.top, logits.softmax(1)))
        share = self.explore * max(0.0, 1 - 2 * progress)
        if share == 0 or run.log_probs:
            return chosen
        drawn = uniform(torch.Size((len(logits), logits.shape[1] + 1)), logits, run.generator)
        anywhere = torch.zeros_like(logits).scatter(1, drawn[:, 1:].topk(self.top, dim=1).indices, 1.0)
        return torch.where((drawn[:, :1] < share), anywhere, chosen)

    def route(self, run: Routing) -> None:
        """One input runs its branches; of a batch, each branch runs for the inputs that picked it."""
        run.record(self.gate_name)
        features = run.features
        weights, picked = self._pick(self.unit.logits(features, run.memory, asked=self.gate))
        if len(features) == 1:
            run.features = _mix(*(self._run(run, j, features) for j in picked[0].tolist()), weights=weights)
        else:
            run.features = self._together(run, weights, picked)
        run.record(self.mix_name)

    def _together(self, run: Routing, weights: Tensor, picked: Tensor) -> Tensor:
        out: Tensor | None = None
        for j in range(len(self.branches)):
            rows, places = (picked == j).nonzero(as_tuple=True)
            if rows.numel() == 0:
                continue
            run.record(self.move_names[j], rows)
            made = self._run(run, j, run.features.index_select(0, rows), rows)
            weighted = made * weights[rows, places].view(-1, *[1] * (made.dim() - 1))
            out = made.new_zeros(len(picked), *made.shape[1:]) if out is None else out
            out.index_add_(0, rows, weighted)
        assert out is not None
        return out

    def _run(self, run: Routing, j: int, features: Tensor, rows: Tensor | None = None) -> Tensor:
        run.record(self.branch_names[j], rows)
        made: Tensor = self.branches[j](features)
        return made

    def gating(self, features: Tensor, state: Tensor | None = None) -> object:
        """The gate and its decision as routed mode makes them, for the stopwatch."""
        memory = {} if state is None or self.unit.memory is None else {self.unit.memory: state}
        weights, picked = self._pick(self.unit.logits(features, memory, asked=self.gate))
        if len(features) == 1:
            return weights, picked[0].tolist()
        return weights, [(picked == j).nonzero(as_tuple=True) for j in range(len(self.branches))]

    def export(self, run: Simulation, exports: Exports) -> list[Op]:
        """The gate with its weights, and each branch."""
        weighing = Weighing(self.unit, self.gate, self.top)
        gate = gate_op(exports, self.gate_name, weighing, self.unit, run)
        ways = zip(self.branch_names, self.branches, strict=True)
        return [
            {"op": "mixture", "gate": gate, "branches": [exports.program(n, each, run.features) for n, each in ways]}
        ]


def shares(logits: Tensor, chosen: Tensor) -> Tensor:
    """The softmax of the logits that were chosen, 0 elsewhere; its gradient also goes into `chosen`.

    Args:
        logits: `b x k`.
        chosen: `b x k`, 1 for those.
    """
    most = logits.detach().masked_fill(chosen.detach() < 0.5, -torch.inf).amax(1, keepdim=True)
    # A branch that was not chosen may be far ahead; what it would have weighed only matters for the gradient.
    grown = (logits - most).clamp(-STEEPEST, STEEPEST).exp() * chosen
    return grown / grown.sum(1, keepdim=True)


def _mix(*made: Tensor, weights: Tensor | None = None) -> Tensor:
    """The weighted sum of what branches made, `b x ...` each.

    Args:
        made: one tensor a branch.
        weights: `b x top`; equal ones, for the stopwatch, if absent.
    """
    if weights is None:
        weights = made[0].new_full((len(made[0]), len(made)), 1 / len(made))
    total = made[0] * weights[:, 0].view(-1, *[1] * (made[0].dim() - 1))
    for place, each in enumerate(made[1:], start=1):
        total = total + each * weights[:, place].view(-1, *[1] * (each.dim() - 1))
    return total


def _gather_and_add(features: Tensor, made: Tensor) -> object:
    """The gathering of a branch's inputs and the adding of what it made, for the stopwatch."""
    rows = torch.arange(features.shape[0], device=features.device)
    return features.index_select(0, rows), torch.zeros_like(made).index_add_(0, rows, made)
