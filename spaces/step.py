"""Steps: the chain a dynamic network is made of, each in two modes.

In *simulated* mode a step computes everything for everybody: that is how networks are trained and how
score tables are filled. In *routed* mode it runs only what the decisions ask for. Exits are steps of
`exit_step`, choices between branches are steps of `choice_step`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from .decision import AbstractDecision
from .exports import Exports, Op, not_exported
from .policy import Policy
from .trace import Part, PartInfo, Recorder, within


@final
@dataclass
class Simulation:
    """What flows through the steps in simulated mode.

    Args:
        features: `b x ...`.
        setting: value of each knob; a knob that is absent is at 0, where it changes nothing.
        progress: share of the training that is done, for what is scheduled; None outside of training, where
            decisions are those of routed mode.
        generator: of the noise that training adds to decisions; torch's own if absent.
        shuffle: permutes the decisions of each step among the inputs: a gate drawn at random at the same rate.
        logits: `b x c` for each exit passed, the final head last.
        usage: part -> `b`, how often each input ran it, given that it got there; parts without an entry run once.
            In training it carries the gradient that a resource loss needs.
        margins: knob -> `b` numbers for each border between two branches: above 0 the dearer one is ahead. Raising the
            knob by `s` raises them by `s`.
        log_probs: `b` for each decision that was drawn from a distribution.
        penalties: scalars to add to the loss.
        memory: what decisions hand on to later ones, `b x s` each.
        scores: scheme that learns -> `b` for each exit passed, the final head left out; their gradient stays within
            the scheme's own weights.
        variant: of a fork, that the steps run under now.
    """

    features: Tensor
    setting: Mapping[str, float] = field(default_factory=dict)
    progress: float | None = None
    generator: torch.Generator | None = None
    shuffle: torch.Generator | None = None
    logits: list[Tensor] = field(default_factory=list)
    usage: dict[str, Tensor] = field(default_factory=dict)
    margins: dict[str, list[Tensor]] = field(default_factory=dict)
    log_probs: list[Tensor] = field(default_factory=list)
    penalties: list[Tensor] = field(default_factory=list)
    memory: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, list[Tensor]] = field(default_factory=dict)
    variant: str | None = None


@final
@dataclass
class Routing:
    """What flows through the steps in routed mode.

    `features`, `alive`, `state` and `memory` hold one row for each input that is still in the network.
    """

    features: Tensor  # n x ...
    policy: Policy
    decision: AbstractDecision
    recorder: Recorder | None
    size: int
    alive: Tensor | None = None  # numbers of the inputs still in the network; None: all
    state: Tensor | None = None  # memory of the decision scheme
    memory: dict[str, Tensor] = field(default_factory=dict)  # what gates hand on to later ones
    setting: Mapping[str, float] = field(default_factory=dict)  # value of each knob, absent ones at 0
    logits: Tensor | None = None  # b x c answers so far
    exit_taken: Tensor | None = None  # b
    done: bool = False
    variant: str | None = None  # of a fork, that the steps run under now

    def record(self, name: str, rows: Tensor | None = None, *, times: Tensor | None = None) -> None:
        """Note that a part runs for everybody still in the network, or for these `rows` of them.

        `times` says how many rows of their own each of them brings to it.
        """
        if self.recorder is not None:
            alive = self.alive
            if rows is not None:
                alive = rows if alive is None else alive.index_select(0, rows)
            self.recorder.add(within(name, self.variant), alive, times)

    def show(self, name: str, value: Tensor) -> None:
        """Tell more of a decision than how often parts run: `n x ...`, of the inputs still in the network."""
        if self.recorder is not None:
            self.recorder.shown[within(name, self.variant)] = value

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
        self.memory = {name: kept.index_select(0, stay) for name, kept in self.memory.items()}

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


class AbstractStep(nn.Module, abc.ABC):
    """One link of the chain.

    `depth` is the number of early exits before it, set by the network that it is in; `knob` is the name of the number
    that shifts its decisions at run time, if there is one; `levels` are the only values of a knob that is no number to
    turn but a way to name one of a few.
    """

    depth: int = 0
    knob: str | None = None
    levels: tuple[float, ...] = ()

    @abc.abstractmethod
    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """The parts this step may run in routed mode, for what an example simulation brings it (batch 1)."""

    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of these parts, without running anything."""

    @abc.abstractmethod
    def watched(self) -> Mapping[str, nn.Module]:
        """The module that runs whenever a part does, by the part's name; parts without weights are left out."""

    @abc.abstractmethod
    def simulate(self, run: Simulation) -> None:
        """Compute everything for everybody."""

    @abc.abstractmethod
    def route(self, run: Routing) -> None:
        """Run only what is asked for."""

    def export(self, run: Simulation, exports: Exports) -> list[Op]:
        """What a runner without dynarch does in place of `route`, for what an example simulation brings (batch 1).

        Raises:
            SpecError: if no operation of the runner does it; by default none does.
        """
        raise not_exported(self)

    def chains(self) -> Sequence[tuple[str, Sequence[AbstractStep]]]:
        """The chains within it, each with the variant that it runs under; only forks have such."""
        return ()


@final
class SegmentStep(AbstractStep):
    """Blocks between two decision points; the last segment ends in the final head.

    Args:
        index: number of the segment.
        body: `b x ...` -> `b x ...`; logits `b x c` if `final`.
        final: whether this is the end of the network.
    """

    def __init__(self, index: int, body: nn.Module, *, final: bool) -> None:
        super().__init__()
        self.index = index
        self.body = body
        self.final = final

    @property
    def info(self) -> PartInfo:
        """Name and conditions of the segment."""
        return PartInfo(f"segment.{self.index}", "segment", self.depth)

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """The segment itself."""
        return (Part(self.info, self.body, (run.features,)),)

    def names(self) -> tuple[str, ...]:
        """The segment itself."""
        return (self.info.name,)

    def watched(self) -> Mapping[str, nn.Module]:
        """The blocks."""
        return {self.info.name: self.body}

    def simulate(self, run: Simulation) -> None:
        """Run the blocks."""
        run.features = self.body(run.features)
        if self.final:
            run.logits.append(run.features)

    def route(self, run: Routing) -> None:
        """Run the blocks for the inputs still in the network."""
        run.record(f"segment.{self.index}")
        run.features = self.body(run.features)
        if self.final:
            run.leave_all(run.features, self.depth)

    def export(self, run: Simulation, exports: Exports) -> list[Op]:
        """Run the blocks."""
        name = exports.program(self.info.name, self.body, run.features)
        if self.final:
            return [{"op": "answer", "program": name, "exit": self.depth}]
        return [{"op": "run", "program": name, "takes": ["x"], "gives": ["x"]}]
