"""Exit step: a head beside the chain, a decision, and the compaction of those who stay."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import final

import torch
from torch import Tensor, nn

from .decision import AbstractDecision
from .errors import ShapeError
from .exports import Exports, Op
from .runnable import Judging
from .step import AbstractStep, Routing, Simulation, compact
from .trace import COMPACT, Part, PartInfo

STATE = "decision"  # slot of a routing program: what the scheme remembers


def judge(
    decision: AbstractDecision,
    logits: Tensor,
    state: Tensor | None,
    threshold: float,
    learned: nn.Module | None = None,
) -> tuple[bool | Tensor, Tensor | None]:
    """Who leaves: one value for a single input (a join of host and device), `n` booleans for more."""
    score, state = decision.score(logits, state, learned)
    if logits.shape[0] == 1:
        return bool(score.detach().item() > threshold), state
    return score > threshold, state


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
        token: equal tokens promise equal work on equal features; None: no promise.
        classes: number of classes; needed where a scheme learns.
        carried: what in the memory is large, so that moving it is charged along with the features.

    Raises:
        ShapeError: if a scheme learns and the number of classes is not given.
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
        token: Hashable = None,
        classes: int | None = None,
        carried: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.carried = carried
        self.index = index
        self.head = head
        self.decisions = decisions
        self.token = token
        self.branch_gradient = branch_gradient
        self.trunk_gradient = trunk_gradient
        # Set after training on the calibration split, so that one threshold means the same at every exit.
        self.register_buffer("temperature", torch.ones(()))
        self.learned = nn.ModuleDict()
        for scheme in decisions:
            if scheme.learns:
                if classes is None:
                    raise ShapeError(f"an exit that decides by {scheme.name} must be told the number of classes")
                made = scheme.build(classes)
                assert made is not None
                self.learned[scheme.name] = made

    def learned_of(self, scheme: str) -> nn.Module | None:
        """What a scheme learned of this exit; None if it learns nothing."""
        return dict(self.learned.items()).get(scheme)

    def tempered(self, features: Tensor) -> Tensor:
        """Logits `b x c` divided by the exit's temperature."""
        logits: Tensor = self.head(features)
        return logits / self.temperature

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """Head, one decision a scheme, compaction."""
        features = run.features
        logits, at = self.tempered(features), self.index
        shapes = (tuple(features.shape[1:]), logits.shape[1])
        token = None if self.token is None else ("exit", self.token, *shapes)
        parts = [Part(PartInfo(f"exit.{at}", "exit", at, at), self.tempered, (features,), token)]
        for scheme in self.decisions:
            info = PartInfo(f"decide.{at}.{scheme.name}", "decide", at, at, scheme.name)
            parts.append(
                Part(
                    info,
                    _Judgement(scheme, self.learned_of(scheme.name)),
                    (logits,),
                    ("decide", scheme.name, shapes[1]),
                )
            )
        info = PartInfo(f"compact.{at}", COMPACT, at, at)
        carried = tuple(run.memory[name] for name in self.carried if name in run.memory)
        moving = (COMPACT, *shapes, *(tuple(each.shape[1:]) for each in carried))
        parts.append(Part(info, _Compaction(), (features, logits, *carried), moving))
        return tuple(parts)

    def names(self) -> tuple[str, ...]:
        """Head, one decision a scheme, compaction."""
        decisions = (f"decide.{self.index}.{scheme.name}" for scheme in self.decisions)
        return (f"exit.{self.index}", *decisions, f"compact.{self.index}")

    def watched(self) -> Mapping[str, nn.Module]:
        """The head."""
        return {f"exit.{self.index}": self.head}

    def simulate(self, run: Simulation) -> None:
        """Add this exit's logits."""
        balanced = self.branch_gradient != 1 or self.trunk_gradient != 1
        seen = scale_gradient(run.features, self.branch_gradient) if balanced else run.features
        logits = self.tempered(seen)
        run.logits.append(logits)
        for scheme in self.decisions:
            if scheme.learns:
                score, _ = scheme.score(logits.detach(), None, self.learned_of(scheme.name))
                run.scores.setdefault(scheme.name, []).append(score)
        if balanced:
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
        learned = self.learned_of(run.policy.decision)
        leave, run.state = judge(run.decision, logits, run.state, threshold, learned)
        if isinstance(leave, bool):
            if leave:
                run.leave_all(logits, self.index)
        else:
            run.leave_some(leave, logits, self.index)

    def export(self, run: Simulation, exports: Exports) -> list[Op]:
        """Head and decision in one program; nothing if the policy does not try this exit."""
        policy = exports.policy
        threshold, name = policy.thresholds[self.index], f"exit.{self.index}"
        if threshold is None:
            return []
        if threshold == -float("inf"):
            answering = Judging(self.head, self.temperature, None, None)
            return [{"op": "answer", "program": exports.program(name, answering, run.features), "exit": self.index}]
        scheme = next(each for each in self.decisions if each.name == policy.decision)
        tried = any(each is not None for each in policy.thresholds[: self.index])
        takes = [STATE] if scheme.remembers and tried else []
        examples = [scheme.score(self.tempered(run.features), None)[1]] if takes else []
        judging = Judging(self.head, self.temperature, scheme, self.learned_of(scheme.name))
        program = exports.program(name, judging, run.features, *(each for each in examples if each is not None))
        gives = [STATE] if scheme.remembers else []
        return [
            {
                "op": "exit",
                "program": program,
                "exit": self.index,
                "threshold": threshold,
                "takes": takes,
                "gives": gives,
            }
        ]


@final
class _Judgement:
    """The decision as routed mode makes it, for the stopwatch; the exit before counts as tried."""

    def __init__(self, scheme: AbstractDecision, learned: nn.Module | None) -> None:
        self.scheme = scheme
        self.learned = learned

    def __call__(self, logits: Tensor) -> object:
        state = self.scheme.score(logits, None)[1] if self.scheme.remembers else None
        leave, _ = judge(self.scheme, logits, state, 0.5, self.learned)
        return leave if isinstance(leave, bool) else leave.nonzero()


@final
class _Compaction:
    """The compaction as routed mode makes it, for the stopwatch: every row moves."""

    def __call__(self, features: Tensor, logits: Tensor, *carried: Tensor) -> object:
        rows = torch.arange(features.shape[0], device=features.device)
        answers = torch.empty_like(logits)
        answers[rows] = logits.index_select(0, rows)
        return compact(features, rows, None, rows), [each.index_select(0, rows) for each in carried]
