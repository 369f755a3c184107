"""Sample steps: the best chunks of an input are chosen before any is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from .backbone import AbstractChunk
from .errors import SpecError
from .exports import Exports, Op
from .read_step import Reading
from .step import AbstractStep, Routing, Simulation
from .trace import Part, PartInfo

KEPT = "kept"  # in the memory of a run: which chunks each input reads


@final
class SampleStep(AbstractStep):
    """Scores all chunks before any is read, and keeps of each input the `k` best; `k` is an external budget.

    The knob stands at one of its `levels`: 0 keeps the largest number, -1 the one before it, and so on. In training
    each input keeps a number at random.

    Args:
        sampler: features `b x f` -> scores `b x chunks`.
        keep: numbers that may be kept, ascending.
        knob: its name.
    """

    def __init__(self, sampler: nn.Module, keep: tuple[int, ...], *, knob: str) -> None:
        super().__init__()
        self.sampler = sampler
        self.keep = keep
        self.knob = knob
        self.levels = tuple(float(j + 1 - len(keep)) for j in range(len(keep)))

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """Scoring and keeping."""
        return (Part(PartInfo("sample", "gate", self.depth), self.choose, (run.features,), None),)

    def names(self) -> tuple[str, ...]:
        """Scoring."""
        return ("sample",)

    def watched(self) -> Mapping[str, nn.Module]:
        """The sampler."""
        return {"sample": self.sampler}

    def choose(self, features: Tensor, k: int | None = None) -> Tensor:
        """`b x chunks`, 1 at the `k` best."""
        return best(self.sampler(features), self.keep[-1] if k is None else k)

    def _count(self, setting: Mapping[str, float]) -> int:
        value = setting.get(self.knob or "", 0.0)
        if value not in self.levels:
            known = ", ".join(f"{level:g}" for level in self.levels)
            raise SpecError(f"policy.setting.{self.knob}", f"must be one of its levels ({known}), but got {value:g}")
        return self.keep[self.levels.index(value)]

    def simulate(self, run: Simulation) -> None:
        """Scores for everybody."""
        scores = self.sampler(run.features)
        if run.progress is None:
            kept = best(scores, self._count(run.setting))
            if run.shuffle is not None:  # as many, anywhere
                order = torch.randperm(len(kept), generator=run.shuffle, device=run.shuffle.device)
                kept = kept[order.to(kept.device)]
        else:
            generator = run.generator
            device = "cpu" if generator is None else generator.device
            drawn = torch.randint(len(self.keep), (len(scores),), generator=generator, device=device).to(scores.device)
            ways = torch.stack([relaxed(scores, k) for k in self.keep])  # levels x b x chunks
            kept = ways[drawn, torch.arange(len(scores), device=scores.device)]
        run.memory[KEPT] = kept

    def route(self, run: Routing) -> None:
        """Scores of the inputs still there."""
        run.record("sample")
        run.memory[KEPT] = self.choose(run.features, self._count(run.setting))

    def export(self, run: Simulation, exports: Exports) -> list[Op]:
        """Scores, and which chunks they keep."""
        name = exports.program("sample", _Keeping(self.sampler, self._count(exports.setting)), run.features)
        return [{"op": "run", "program": name, "takes": ["x"], "gives": [KEPT]}]


@final
class _Keeping(nn.Module):
    """The sampler with the number of chunks that it keeps."""

    def __init__(self, sampler: nn.Module, k: int) -> None:
        super().__init__()
        self.sampler = sampler
        self.k = k

    def forward(self, features: Tensor) -> Tensor:
        """`b x f` -> `b x chunks`, 1 at the `k` best."""
        return best(self.sampler(features), self.k)


@final
class KeptStep(AbstractStep):
    """Reads a chunk for the inputs that keep it.

    Args:
        index: number of the chunk, from 0.
        chunk: reads it.
    """

    def __init__(self, index: int, chunk: AbstractChunk) -> None:
        super().__init__()
        self.index = index
        self.reading = Reading(index, chunk)

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """Reading."""
        return tuple(self.reading.parts(run.features, self.depth))

    def names(self) -> tuple[str, ...]:
        """Reading and moving."""
        return (self.reading.name, self.reading.move)

    def watched(self) -> Mapping[str, nn.Module]:
        """The chunk."""
        return {self.reading.name: self.reading.chunk}

    def simulate(self, run: Simulation) -> None:
        """Read for everybody."""
        self.reading.simulate(run, run.memory[KEPT][:, self.index])

    def route(self, run: Routing) -> None:
        """Read for those who keep it."""
        self.reading.route(run, (run.memory[KEPT][:, self.index] > 0).nonzero().flatten())

    def export(self, run: Simulation, exports: Exports) -> list[Op]:
        """Read where the slot says so."""
        return [{"op": "read", **self.reading.export(run, exports), "slot": KEPT, "column": self.index}]


def best(scores: Tensor, k: int) -> Tensor:
    """`b x n` -> 1 at the `k` largest of each row, 0 elsewhere."""
    return torch.zeros_like(scores).scatter_(1, scores.topk(k, 1).indices, 1.0)


def relaxed(scores: Tensor, k: int) -> Tensor:
    """`best` in value; in gradient a sigmoid about the border between those that are kept and those that are not."""
    hard = best(scores, k)
    if k == scores.shape[1]:
        return hard
    ordered = scores.detach().sort(1, descending=True).values
    soft = torch.sigmoid(scores - (ordered[:, k - 1 : k] + ordered[:, k : k + 1]) / 2)
    return hard + soft - soft.detach()
