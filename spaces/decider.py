"""Decider: a gate, its knob, and how training passes through what it decides."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from .gate import GateUnit
from .gradient import AbstractGradient, one_hot, uniform
from .step import Simulation


@final
class Decider(nn.Module):
    """Picks one of `k` ways for each input: the one with the largest logit.

    A knob `s` adds `s * work` to the logit of each way: above 0 more is spent, below 0 less, and no weight changes.

    Args:
        unit: the gate.
        works: share of the work of the dearest way, for each way.
        gradient: how training passes through the decision.
        knob: its name; None where no way is dearer than another.
        place: where in the network the decision falls, from 0 to 1.
        balance: factor of the loss that keeps all ways in use.
        explore: share of the inputs that take a way at random when training begins; it falls to 0 at half of it.
            Without it a way that no input picks would never learn anything, and so never be picked.
        informed: factor of the reward for decisions that tell inputs apart. Without it a resource target is met by
            gates that are always open and others that are always shut: a smaller network, and a static one.
    """

    works: Tensor

    def __init__(
        self,
        unit: GateUnit,
        works: Sequence[float],
        *,
        gradient: AbstractGradient,
        knob: str | None,
        place: float,
        balance: float = 0.0,
        explore: float = 0.0,
        informed: float = 0.0,
    ) -> None:
        super().__init__()
        self.unit = unit
        self.gate = unit.module
        self.register_buffer("works", torch.tensor(works), persistent=False)
        self.gradient = gradient
        self.knob = knob
        self.place = place
        self.balance = balance
        self.explore = explore
        self.informed = informed

    def inputs(self, features: Tensor, memory: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """What the gate is called with."""
        state = self.unit.state(features, dict(memory))
        return (features,) if state is None else (features, state)

    def part_token(self, shape: tuple[int, ...]) -> Hashable:
        """Equal tokens promise equal work of gate and decision."""
        return ("gate", self.unit.token, len(self.works), shape, self.knob is None)

    def logits(self, features: Tensor, memory: dict[str, Tensor], setting: Mapping[str, float]) -> Tensor:
        """`b x k` with the knob at its setting; the memory is brought up to date."""
        made = self.unit.logits(features, memory, asked=self.gate)
        return made if self.knob is None else made + setting.get(self.knob, 0.0) * self.works

    def weights(self, logits: Tensor, run: Simulation) -> Tensor:
        """`b x k`, one-hot in value, as the mode of the run asks for it."""
        return self._decide(logits, run) if run.progress is None else self._train(logits, run, run.progress)

    def _decide(self, logits: Tensor, run: Simulation) -> Tensor:
        """As at run time."""
        if self.knob is not None:
            run.margins.setdefault(self.knob, []).extend(self._margins(logits))
        picked = logits.argmax(1)
        if run.shuffle is not None:
            order = torch.randperm(len(picked), generator=run.shuffle, device=run.shuffle.device)
            picked = picked[order.to(picked.device)]
        return one_hot(picked, logits)

    def _margins(self, logits: Tensor) -> list[Tensor]:
        """For every two ways, by how much the knob may fall before the cheaper one is ahead; `b` each."""
        count, works = logits.shape[1], self.works
        pairs = [(i, j) for j in range(count) for i in range(j)]
        return [(logits[:, j] - logits[:, i]) / (works[j] - works[i]) for i, j in pairs]

    def _train(self, logits: Tensor, run: Simulation, progress: float) -> Tensor:
        """With the gradient of the estimator."""
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

    def pick(self, logits: Tensor) -> int | Tensor:
        """The way of a single input (a join of host and device), or of each of many."""
        picked = logits.argmax(1)
        return int(picked.item()) if logits.shape[0] == 1 else picked

    def gating(self, features: Tensor, state: Tensor | None = None) -> object:
        """The gate and its decision as routed mode makes them, for the stopwatch."""
        memory = {} if state is None or self.unit.memory is None else {self.unit.memory: state}
        picked = self.pick(self.logits(features, memory, {}))
        return picked if isinstance(picked, int) else [(picked == j).nonzero() for j in range(len(self.works))]


def load_balance(weights: Tensor, probabilities: Tensor) -> Tensor:
    """1 where all branches are picked equally often, up to `k` where one takes all.

    Args:
        weights: `b x k`, one-hot.
        probabilities: `b x k`.

    Source: Fedus, Zoph, Shazeer, "Switch Transformers", JMLR 2022.
    """
    return weights.shape[1] * (weights.mean(0) * probabilities.mean(0)).sum()


def information(logits: Tensor) -> Tensor:
    """Nats that a decision tells of its input: 0 if all inputs of a batch are treated alike, at most `log k`.

    The entropy of the mean decision less the mean entropy of decisions.

    Args:
        logits: `b x k`.

    Source: Krause, Perona, Gomes, "Discriminative Clustering by Regularized Information Maximization", NIPS 2010. That
        gates must be made to depend on the input is known from Bejnordi, Blankevoort, Welling, "Batch-Shaping for
        Learning Conditional Channel Gated Networks", ICLR 2020, which does it in another way.
    """
    mean, each = logits.softmax(1).mean(0), logits.log_softmax(1)
    return (each.exp() * each).sum(1).mean() - (mean * mean.clamp_min(1e-9).log()).sum()
