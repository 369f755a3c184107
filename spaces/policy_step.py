"""Policy step: one small network prepares, before anything runs, what the gates of later places read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

from torch import nn

from .exports import Exports, Op
from .gate import GateUnit
from .step import AbstractStep, Routing, Simulation
from .trace import Part, PartInfo


@final
class PolicyStep(AbstractStep):
    """Decides about everything that is to come.

    Args:
        unit: features `b x ...` -> the memory `b x s` that later places read.
    """

    def __init__(self, unit: GateUnit) -> None:
        super().__init__()
        assert unit.memory is not None
        self.module = unit.module
        self.token = unit.token
        self.memory = unit.memory

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """The policy network."""
        call: Callable[..., object] = self.module
        token = ("policy", self.token, tuple(run.features.shape[1:]))
        return (Part(PartInfo("policy", "gate", self.depth), call, (run.features,), token),)

    def names(self) -> tuple[str, ...]:
        """The policy network."""
        return ("policy",)

    def watched(self) -> Mapping[str, nn.Module]:
        """The policy network."""
        return {"policy": self.module}

    def simulate(self, run: Simulation) -> None:
        """Write down the logits of all places."""
        run.memory[self.memory] = self.module(run.features)

    def route(self, run: Routing) -> None:
        """The same."""
        run.record("policy")
        run.memory[self.memory] = self.module(run.features)

    def export(self, run: Simulation, exports: Exports) -> list[Op]:
        """Write the logits of all places into their slot."""
        name = exports.program("policy", self.module, run.features)
        return [{"op": "run", "program": name, "takes": ["x"], "gives": [self.memory]}]
