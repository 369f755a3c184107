"""Level step: a knob says, for all inputs alike, how much of a block runs."""

from __future__ import annotations

import abc
from collections.abc import Hashable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from .errors import SpecError
from .exports import Exports, Op
from .step import AbstractStep, Routing, Simulation
from .trace import Part, PartInfo


class AbstractLevel(nn.Module, abc.ABC):
    """One way to run a block: less work where others do more, and the choice of *which* work made for each input.

    `forward` is what routed mode runs.
    """

    token: Hashable = None  # equal tokens promise equal work on equal features

    @abc.abstractmethod
    def whole(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        """The same features with everything computed and what is not wanted set to zero; gradients pass.

        Args:
            x: `b x ...`.
            order: `b` rows; each input gets what was decided for the one named here. None: for itself.
        """


@final
class LevelStep(AbstractStep):
    """One of several levels of a block, picked by a knob: an external budget.

    At 0 the last and dearest level runs, at -1 the one before, and so on. In training each input takes a level at
    random, the same at every step of the knob, so that one network serves all of them.

    Args:
        index: number of the step in the network.
        ways: by rising work.
        knob: its name.
    """

    def __init__(self, index: int, ways: Sequence[AbstractLevel], *, knob: str) -> None:
        super().__init__()
        self.index = index
        self.knob = knob
        self.ways = nn.ModuleList(ways)
        self.levels = tuple(float(j - len(ways) + 1) for j in range(len(ways)))
        self.level_names = tuple(f"level.{index}.{j}" for j in range(len(ways)))

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """Every level; a network runs one of them."""
        shape, at = tuple(run.features.shape[1:]), f"level.{self.index}"
        parts = []
        for name, way in zip(self.level_names, self.ways, strict=True):
            assert isinstance(way, AbstractLevel)
            token = None if way.token is None else ("level", way.token, shape)
            parts.append(Part(PartInfo(name, "branch", self.depth, choice=at), way, (run.features,), token))
        return tuple(parts)

    def names(self) -> tuple[str, ...]:
        """Every level."""
        return self.level_names

    def watched(self) -> Mapping[str, nn.Module]:
        """The levels."""
        return dict(zip(self.level_names, self.ways, strict=True))

    def simulate(self, run: Simulation) -> None:
        """The level of the knob, everything of it computed; in training all levels, each for its share of inputs."""
        if run.progress is not None:
            run.features = self._train(run)
            return
        picked = self._picked(run.setting)
        order = None
        if run.shuffle is not None:
            order = torch.randperm(len(run.features), generator=run.shuffle, device=run.shuffle.device)
            order = order.to(run.features.device)
        for j, name in enumerate(self.level_names):
            run.usage[name] = run.features.new_full((len(run.features),), float(j == picked))
        run.features = self._way(picked).whole(run.features, order)

    def _train(self, run: Simulation) -> Tensor:
        place = f"level.{self.knob}"
        if place not in run.memory:
            run.memory[place] = self._drawn(run)
        drawn, out = run.memory[place], None
        for j in range(len(self.ways)):
            rows = (drawn == j).nonzero().flatten()
            if rows.numel():
                made = self._way(j).whole(run.features.index_select(0, rows))
                out = made.new_zeros(len(drawn), *made.shape[1:]) if out is None else out
                out = out.index_copy(0, rows, made)
        assert out is not None
        return out

    def _drawn(self, run: Simulation) -> Tensor:
        """`b` levels, as equally often as can be; one for all of a batch too small to be divided."""
        size, levels = len(run.features), len(self.ways)
        order = torch.randperm(size, generator=run.generator, device=run.generator.device if run.generator else None)
        drawn = order % levels if size >= 2 * levels else order.new_full((size,), int(order[0]) % levels)
        return drawn.to(run.features.device)

    def route(self, run: Routing) -> None:
        """Run the level of the knob."""
        picked = self._picked(run.setting)
        run.record(self.level_names[picked])
        run.features = self._way(picked)(run.features)

    def export(self, run: Simulation, exports: Exports) -> list[Op]:
        """The level that the knob stands at; the others are left behind."""
        picked = self._picked(exports.setting)
        name = exports.program(self.level_names[picked], self._way(picked), run.features)
        return [{"op": "run", "program": name, "takes": ["x"], "gives": ["x"]}]

    def _way(self, level: int) -> AbstractLevel:
        way = self.ways[level]
        assert isinstance(way, AbstractLevel)
        return way

    def _picked(self, setting: Mapping[str, float]) -> int:
        assert self.knob is not None
        value = setting.get(self.knob, 0.0)
        if value not in self.levels:
            known = ", ".join(f"{level:g}" for level in self.levels)
            raise SpecError(f"policy.setting.{self.knob}", f"must be one of its levels ({known}), but got {value:g}")
        return self.levels.index(value)
