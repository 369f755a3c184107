"""Runnable: decisions as modules, tensors in and tensors out, so that they can be exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor, nn

from .decider import Decider
from .decision import AbstractDecision
from .exports import Exports, Op
from .gate import GateUnit
from .step import Simulation


@final
class Judging(nn.Module):
    """A head with the decision behind it.

    Args:
        head: features `b x ...` -> logits `b x c`.
        temperature: that logits are divided by.
        scheme: the decision.
        learned: what it learned of this exit.
    """

    def __init__(
        self, head: nn.Module, temperature: Tensor, scheme: AbstractDecision | None, learned: nn.Module | None
    ) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("temperature", temperature)
        self.scheme = scheme
        self.learned = learned

    def forward(self, features: Tensor, state: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        """Logits alone without a scheme; else logits, score `b`, and the state of schemes that remember."""
        logits: Tensor = self.head(features) / self.temperature
        if self.scheme is None:
            return logits
        score, after = self.scheme.score(logits, state, self.learned)
        return (logits, score) if after is None else (logits, score, after)


@final
class Picking(nn.Module):
    """A gate with its knob at a setting.

    Args:
        decider: gate and knob.
        setting: value of each knob.
        grid: rows and columns of a gate that decides about tiles; None: it decides about inputs.
    """

    def __init__(self, decider: Decider, setting: Mapping[str, float], grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.decider = decider
        self.setting = dict(setting)
        self.grid = grid

    def forward(self, features: Tensor, state: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        """Numbers of the ways, `b` or `b x rows x columns`, and the new state of gates with memory."""
        name = self.decider.unit.memory
        memory = {} if name is None or state is None else {name: state}
        picked = self.decider.logits(features, memory, self.setting).argmax(1)
        picked = picked if self.grid is None else picked.view(-1, *self.grid)
        return picked if name is None else (picked, memory[name])


@final
class Weighing(nn.Module):
    """The gate of a mixture.

    Args:
        unit: of the gate.
        asked: the gate as the step holds it.
        top: how many branches run for each input.
    """

    def __init__(self, unit: GateUnit, asked: nn.Module, top: int) -> None:
        super().__init__()
        self.unit = unit
        self.asked = asked
        self.top = top

    def forward(self, features: Tensor, state: Tensor | None = None) -> tuple[Tensor, ...]:
        """Weights and numbers of branches, `b x top` each, and the new state of gates with memory."""
        name = self.unit.memory
        memory = {} if name is None or state is None else {name: state}
        values, picked = self.unit.logits(features, memory, asked=self.asked).topk(self.top, dim=1)
        made = (values.softmax(1), picked)
        return made if name is None else (*made, memory[name])


def gate_op(exports: Exports, name: str, module: nn.Module, unit: GateUnit, run: Simulation) -> Op:
    """What a routing program says of a gate; `module` is what is exported."""
    state = unit.state(run.features, run.memory)
    examples = (run.features,) if state is None else (run.features, state)
    return {"program": exports.program(name, module, *examples), "memory": unit.memory, "size": unit.size}
