"""Steps: the chain a dynamic network is made of, each in two modes.

In *simulated* mode a step computes everything for everybody: that is how networks are trained and how
score tables are filled. In *routed* mode it runs only what the decisions ask for.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from .decision import AbstractDecision
from .policy import Policy
from .trace import COMPACT, Part, PartInfo, Recorder


@final
@dataclass
class Simulation:
    """What flows through the steps in simulated mode."""

    features: Tensor  # b x ...
    logits: list[Tensor] = field(default_factory=list)  # b x c for each exit passed, the final head last


@final
@dataclass
class Routing:
    """What flows through the steps in routed mode.

    `features`, `alive` and `state` hold one row for each input that is still in the network.
    """

    features: Tensor  # n x ...
    policy: Policy
    decision: AbstractDecision
    recorder: Recorder | None
    size: int
    alive: Tensor | None = None  # numbers of the inputs still in the network; None: all
    state: Tensor | None = None  # memory of the decision scheme
    logits: Tensor | None = None  # b x c answers so far
    exit_taken: Tensor | None = None  # b
    done: bool = False

    def record(self, name: str) -> None:
        """Note that a part runs for everybody still in the network."""
        if self.recorder is not None:
            self.recorder.add(name, self.alive)

    def leave_all(self, logits: Tensor, exit_index: int) -> None:
        """Everybody still in the network leaves with these answers."""
        self.done = True
        if self.alive is None:
            self.logits = logits
            self.exit_taken = torch.full((self.size,), exit_index, device=logits.device)
        else:
            self._write(self.alive, logits, exit_index)

    def leave_some(self, leave: Tensor, logits: Tensor, exit_index: int) -> None:
        """The inputs where `leave` (n booleans) is true leave; the rest is compacted."""
        gone = leave.nonzero().flatten()
        if gone.numel() == 0:
            return
        if gone.numel() == leave.numel():
            self.leave_all(logits, exit_index)
            return
        everybody = torch.arange(self.size, device=leave.device) if self.alive is None else self.alive
        self._write(everybody[gone], logits.index_select(0, gone), exit_index)
        stay = (~leave).nonzero().flatten()
        self.features, self.alive, self.state = compact(self.features, everybody, self.state, stay)

    def _write(self, rows: Tensor, logits: Tensor, exit_index: int) -> None:
        if self.logits is None or self.exit_taken is None:
            self.logits = logits.new_empty(self.size, logits.shape[1])
            self.exit_taken = torch.full((self.size,), -1, device=logits.device)
        self.logits[rows] = logits
        self.exit_taken[rows] = exit_index


def compact(
    features: Tensor, alive: Tensor, state: Tensor | None, stay: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keep the rows `stay` of everything that belongs to the inputs still in the network."""
    rest = None if state is None else state.index_select(0, stay)
    return features.index_select(0, stay), alive.index_select(0, stay), rest


def judge(
    decision: AbstractDecision, logits: Tensor, state: Tensor | None, threshold: float
) -> tuple[bool | Tensor, Tensor | None]:
    """Who leaves: one value for a single input (a join of host and device), `n` booleans for more."""
    score, state = decision.score(logits, state)
    if logits.shape[0] == 1:
        return bool(score.item() > threshold), state
    return score > threshold, state


class AbstractStep(nn.Module, abc.ABC):
    """One link of the chain."""

    @abc.abstractmethod
    def parts(self, features: Tensor) -> tuple[Part, ...]:
        """The parts this step may run in routed mode, for example features `1 x ...`."""

    @abc.abstractmethod
    def simulate(self, run: Simulation) -> None:
        """Compute everything for everybody."""

    @abc.abstractmethod
    def route(self, run: Routing) -> None:
        """Run only what is asked for."""


@final
class SegmentStep(AbstractStep):
    """Blocks between two decision points; the last segment ends in the final head.

    Args:
        index: number of the segment.
        depth: number of early exits before it.
        body: `b x ...` -> `b x ...`; logits `b x c` if `final`.
        final: whether this is the end of the network.
    """

    def __init__(self, index: int, depth: int, body: nn.Module, *, final: bool) -> None:
        super().__init__()
        self.info = PartInfo(f"segment.{index}", "segment", depth)
        self.depth = depth
        self.body = body
        self.final = final

    def parts(self, features: Tensor) -> tuple[Part, ...]:
        """The segment itself."""
        return (Part(self.info, self.body, (features,)),)

    def simulate(self, run: Simulation) -> None:
        """Run the blocks."""
        run.features = self.body(run.features)
        if self.final:
            run.logits.append(run.features)

    def route(self, run: Routing) -> None:
        """Run the blocks for the inputs still in the network."""
        run.record(self.info.name)
        run.features = self.body(run.features)
        if self.final:
            run.leave_all(run.features, self.depth)


class _ScaleGradient(torch.autograd.Function):
    """Identity forward, scaled gradient backward."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None  # type: ignore[attr-defined]


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """`x` itself, with its gradient multiplied by `factor`."""
    scaled: Tensor = _ScaleGradient.apply(x, factor)  # type: ignore[no-untyped-call]
    return scaled


@final
class ExitStep(AbstractStep):
    """An early exit: a head, a decision, and for batches the compaction of those who stay.

    Args:
        index: number of the exit in depth order, from 0.
        head: features `b x ...` -> logits `b x c`.
        decisions: the schemes a policy may use here.
        branch_gradient: factor on the gradient that the head sends into the backbone.
        trunk_gradient: factor on the gradient that the rest of the network sends past this exit.
        token: name of the head type, if all heads of that name on equal features are alike.
    """

    temperature: Tensor

    def __init__(
        self,
        index: int,
        head: nn.Module,
        *,
        decisions: tuple[AbstractDecision, ...],
        branch_gradient: float = 1.0,
        trunk_gradient: float = 1.0,
        token: str | None = None,
    ) -> None:
        super().__init__()
        self.index = index
        self.head = head
        self.decisions = decisions
        self.token = token
        self.branch_gradient = branch_gradient
        self.trunk_gradient = trunk_gradient
        # Set after training on the calibration split, so that one threshold means the same at every exit.
        self.register_buffer("temperature", torch.ones(()))

    def tempered(self, features: Tensor) -> Tensor:
        """Logits `b x c` divided by the exit's temperature."""
        logits: Tensor = self.head(features)
        return logits / self.temperature

    def parts(self, features: Tensor) -> tuple[Part, ...]:
        """Head, one decision a scheme, compaction."""
        logits, at = self.tempered(features), self.index
        shapes = (tuple(features.shape[1:]), logits.shape[1])
        token = None if self.token is None else ("exit", self.token, *shapes)
        parts = [Part(PartInfo(f"exit.{at}", "exit", at, at), self.tempered, (features,), token)]
        for scheme in self.decisions:
            info = PartInfo(f"decide.{at}.{scheme.name}", "decide", at, at, scheme.name)
            parts.append(Part(info, _Judgement(scheme), (logits,), ("decide", scheme.name, shapes[1])))
        info = PartInfo(f"compact.{at}", COMPACT, at, at)
        parts.append(Part(info, _Compaction(), (features, logits), (COMPACT, *shapes)))
        return tuple(parts)

    def simulate(self, run: Simulation) -> None:
        """Add this exit's logits."""
        if self.branch_gradient == 1 and self.trunk_gradient == 1:
            run.logits.append(self.tempered(run.features))
            return
        run.logits.append(self.tempered(scale_gradient(run.features, self.branch_gradient)))
        run.features = scale_gradient(run.features, self.trunk_gradient)

    def route(self, run: Routing) -> None:
        """Try the exit if the policy says so; let out who is sure enough."""
        threshold = run.policy.thresholds[self.index]
        if threshold is None:
            return
        run.record(f"exit.{self.index}")
        logits = self.tempered(run.features)
        if threshold == -float("inf"):
            run.leave_all(logits, self.index)
            return
        run.record(f"decide.{self.index}.{run.policy.decision}")
        leave, run.state = judge(run.decision, logits, run.state, threshold)
        if isinstance(leave, bool):
            if leave:
                run.leave_all(logits, self.index)
        else:
            run.leave_some(leave, logits, self.index)


@final
class _Judgement:
    """The decision as routed mode makes it, for the stopwatch; the exit before counts as tried."""

    def __init__(self, scheme: AbstractDecision) -> None:
        self.scheme = scheme

    def __call__(self, logits: Tensor) -> object:
        state = self.scheme.score(logits, None)[1]
        leave, _ = judge(self.scheme, logits, state, 0.5)
        return leave if isinstance(leave, bool) else leave.nonzero()


@final
class _Compaction:
    """The compaction as routed mode makes it, for the stopwatch: every row moves."""

    def __call__(self, features: Tensor, logits: Tensor) -> object:
        rows = torch.arange(features.shape[0], device=features.device)
        answers = torch.empty_like(logits)
        answers[rows] = logits.index_select(0, rows)
        return compact(features, rows, None, rows)
