"""Read steps: a chunk of the input is read for the inputs that ask for it, and dropped for the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn

from .backbone import AbstractChunk
from .decider import Decider
from .errors import SpecError
from .exports import Exports, Op
from .packed import Drop
from .runnable import Picking, gate_op
from .step import AbstractStep, Routing, Simulation
from .trace import COMPACT, Part, PartInfo

PENDING = "pending"  # in the memory of a run: how many of the next chunks are jumped over


@final
class _Gathering:
    """The gathering of the inputs that read and the writing back of what came of it, for the stopwatch."""

    def __call__(self, features: Tensor, made: Tensor) -> object:
        rows = torch.arange(features.shape[0], device=features.device)
        given = features.index_select(0, rows)
        return given, made.clone().index_copy_(0, rows, made)


@final
class Reading(nn.Module):
    """A chunk that is read for some inputs.

    Args:
        index: number of the chunk among those that may be left out.
        chunk: reads it.
    """

    def __init__(self, index: int, chunk: AbstractChunk) -> None:
        super().__init__()
        self.chunk = chunk
        self.drop = chunk.dropped()
        self.token = id(chunk)
        self.at = f"choice.{index}"
        self.name = f"branch.{index}.1"
        self.move = f"move.{index}.1"

    def parts(self, features: Tensor, depth: int) -> list[Part]:
        """Reading, and for batches the gathering of the inputs that read."""
        shape, made = tuple(features.shape[1:]), self.chunk(features)
        moving = (COMPACT, "read", shape, tuple(made.shape[1:]))
        info = PartInfo(self.name, "branch", depth, choice=self.at)
        return [
            Part(info, self.chunk, (features,), ("branch", self.token, shape)),
            Part(PartInfo(self.move, COMPACT, depth, choice=f"{self.at}.move"), _Gathering(), (features, made), moving),
        ]

    def simulate(self, run: Simulation, read: Tensor) -> None:
        """Read for everybody, and keep it where `read` (`b`) is 1."""
        share = read[:, None]
        run.features = self.chunk(run.features) * share + self.drop(run.features) * (1 - share)
        run.usage[self.name] = run.usage[self.move] = read

    def route(self, run: Routing, rows: Tensor) -> None:
        """Read for these rows."""
        features = run.features
        if rows.numel() == 0:
            run.features = self.drop(features)
        elif rows.numel() == features.shape[0]:
            run.record(self.name)
            run.features = self.chunk(features)
        else:
            run.record(self.name, rows)
            run.record(self.move, rows)
            out = self.drop(features).clone()
            run.features = out.index_copy_(0, rows, self.chunk(features.index_select(0, rows)))

    def export(self, run: Simulation, exports: Exports) -> Op:
        """What reading needs: the program, and how much of the row goes where nobody reads."""
        if not isinstance(self.drop, Drop):
            name = type(self.chunk).__name__
            rule = "what is not read must be cut off the front of the row"
            raise SpecError(
                f"export.{name}", f"{rule}, but its `dropped` gives a {type(self.drop).__name__}; give Drop"
            )
        return {"program": exports.program(self.name, self.chunk, run.features), "drop": self.drop.taken}


@final
class JumpStep(AbstractStep):
    """Reads a chunk unless an earlier jump goes past it; whoever has read it decides how many of the next to jump over.

    Args:
        index: number of the chunk, from 0.
        chunk: reads it.
        reach: chunks that a jump goes past at most.
        decider: of `reach + 1` ways, the longest jump first; None: the last chunk.
    """

    def __init__(self, index: int, chunk: AbstractChunk, reach: int, decider: Decider | None) -> None:
        super().__init__()
        self.reading = Reading(index, chunk)
        self.reach = reach
        self.decider = decider
        self.gate_name = f"gate.{index}"
        self.knob = None if decider is None else decider.knob

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """Reading, then the decision."""
        parts = self.reading.parts(run.features, self.depth)
        if self.decider is not None:
            after = self.reading.chunk(run.features)
            inputs, token = self.decider.inputs(after, run.memory), self.decider.part_token(tuple(after.shape[1:]))
            parts.append(Part(PartInfo(self.gate_name, "gate", self.depth), self.decider.gating, inputs, token))
        return tuple(parts)

    def names(self) -> tuple[str, ...]:
        """Reading, moving, and the decision."""
        reading = self.reading
        return (reading.name, reading.move, *(() if self.decider is None else (self.gate_name,)))

    def watched(self) -> Mapping[str, nn.Module]:
        """The chunk and the gate."""
        gate = {} if self.decider is None else {self.gate_name: self.decider.gate}
        return {self.reading.name: self.reading.chunk, **gate}

    def simulate(self, run: Simulation) -> None:
        """Read for everybody; what is pending is `b x (reach + 1)`, one-hot in value."""
        pending = run.memory.get(PENDING)
        if pending is None:
            pending = run.features.new_zeros(run.features.shape[0], self.reach + 1)
            pending[:, 0] = 1
        read = pending[:, 0]
        self.reading.simulate(run, read)
        waiting = torch.cat([pending[:, 1:], torch.zeros_like(pending[:, :1])], 1)
        if self.decider is not None:
            name = self.decider.unit.memory
            before = None if name is None else run.memory.get(name)
            logits = self.decider.logits(run.features, run.memory, run.setting)
            if name is not None:  # who does not read does not decide, so its gate remembers nothing new
                old = run.features.new_zeros(len(read), self.decider.unit.size) if before is None else before
                run.memory[name] = torch.where(read[:, None] > 0, run.memory[name], old)
            waiting = waiting + read[:, None] * self.decider.weights(logits, run).flip(1)
            run.usage[self.gate_name] = read
        run.memory[PENDING] = waiting

    def route(self, run: Routing) -> None:
        """Read for those who have arrived here; the memory holds how many chunks each still jumps over (`n x 1`)."""
        pending = run.memory.get(PENDING)
        if pending is None:
            pending = run.features.new_zeros(run.features.shape[0], 1)
        rows = (pending[:, 0] == 0).nonzero().flatten()
        self.reading.route(run, rows)
        waiting = (pending - 1).clamp_min(0)
        if self.decider is not None and rows.numel():
            jumped = self.reach - self._decide(run, self.decider, rows)
            waiting[rows, 0] = jumped.to(waiting)
        run.memory[PENDING] = waiting

    def _decide(self, run: Routing, decider: Decider, rows: Tensor) -> Tensor:
        """The way that each of these rows goes; others neither decide nor remember."""
        everybody = rows.numel() == run.features.shape[0]
        run.record(self.gate_name, None if everybody else rows)
        features = run.features if everybody else run.features.index_select(0, rows)
        name = decider.unit.memory
        state = None if name is None else run.memory.get(name)
        memory = {} if name is None or state is None else {name: state.index_select(0, rows)}
        picked = decider.logits(features, memory, run.setting).argmax(1)
        if name is not None:
            whole = run.features.new_zeros(run.features.shape[0], decider.unit.size) if state is None else state
            run.memory[name] = whole.index_copy(0, rows, memory[name])
        return picked

    def export(self, run: Simulation, exports: Exports) -> list[Op]:
        """Reading, and the gate if there is one."""
        reading, gate = self.reading.export(run, exports), None
        if self.decider is not None:
            picking = Picking(self.decider, exports.setting)
            after = replace(run, features=self.reading.chunk(run.features))
            gate = gate_op(exports, self.gate_name, picking, self.decider.unit, after)
        return [{"op": "jump", **reading, "reach": self.reach, "gate": gate}]
