"""Tile step: a gate picks, for each input, the tiles of the features that a block runs on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from .decider import Decider
from .exports import Exports, Op
from .gate import GateUnit
from .gradient import AbstractGradient
from .runnable import Picking, gate_op
from .step import AbstractStep, Routing, Simulation
from .trace import Part, PartInfo

Rows = tuple[Tensor, Tensor, Tensor]  # of each tile: the input, and its place in the grid


@final
class Tiling:
    """How features `b x c x h x w` are cut into a grid of square tiles.

    Tiles at the lower and right border that stick out are filled up with zeros, and cut off again.

    Args:
        side: of a tile.
        halo: how far a block sees beyond the tile that it makes.
    """

    def __init__(self, side: int, halo: int) -> None:
        self.side = side
        self.halo = halo

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of tiles for features `c x h x w`."""
        return math.ceil(shape[1] / self.side), math.ceil(shape[2] / self.side)

    def frame(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features with a halo around them, and the room for what is made: a copy of them, `b x c x h' x w'`."""
        (rows, columns), halo = self.grid(tuple(features.shape[1:])), self.halo
        below, right = rows * self.side - features.shape[2], columns * self.side - features.shape[3]
        padded = functional.pad(features, (halo, halo + right, halo, halo + below))
        return padded, functional.pad(features, (0, right, 0, below)) if below or right else features.clone()

    def gather(self, padded: Tensor, rows: Rows) -> Tensor:
        """Some tiles with their halo, `n x c x k x k`."""
        reach = self.side + 2 * self.halo
        views = padded.unfold(2, reach, self.side).unfold(3, reach, self.side).permute(0, 2, 3, 1, 4, 5)
        return views[rows]

    def scatter(self, room: Tensor, made: Tensor, rows: Rows) -> Tensor:
        """The room with some tiles `n x c x s x s` written into it."""
        views = room.unfold(2, self.side, self.side).unfold(3, self.side, self.side).permute(0, 2, 3, 1, 4, 5)
        views[rows] = made
        return room


def _all_rows(count: int, grid: tuple[int, int], like: Tensor) -> Rows:
    """Every tile of `count` inputs, input by input."""
    places = torch.ones(count, *grid, device=like.device).nonzero().unbind(1)
    return places[0], places[1], places[2]


@final
class TileStep(AbstractStep):
    """Gate, then the block on the tiles that it opened; the others are handed on as they are.

    Both modes run the block on the same tiles. What lies beyond the features is zero, as it is for the block itself;
    what the block makes of these zeros on its way is not. The knob adds to the logit of every tile.

    Args:
        index: number of the step in the network.
        gate: features -> a logit pair a tile, `(b * tiles) x 2`, input by input; the second opens.
        body: the block on tiles: `n x c x (s + 2 halo) x (s + 2 halo)` -> `n x c x s x s`.
        tiling: side and halo.
        gradient: how training passes through the gate.
        knob: its name.
        place: where in the network the step is, from 0 to 1.
        explore: share of the tiles that are opened or shut at random when training begins.
        token: equal tokens promise that the block does equal work on equal tiles.
    """

    def __init__(
        self,
        index: int,
        gate: GateUnit,
        body: nn.Module,
        tiling: Tiling,
        *,
        gradient: AbstractGradient,
        knob: str,
        place: float,
        explore: float = 0.0,
        token: object = None,
    ) -> None:
        super().__init__()
        self.knob = knob
        self.decider = Decider(gate, (0.0, 1.0), gradient=gradient, knob=knob, place=place, explore=explore)
        self.body = body
        self.tiling = tiling
        self.token = token
        self.gate_name, self.frame_name = f"gate.{index}", f"frame.{index}"
        self.gather_name, self.tiles_name, self.scatter_name = (f"{n}.{index}" for n in ("gather", "tiles", "scatter"))

    def names(self) -> tuple[str, ...]:
        """Gate, the frame around the features, and of open tiles their gathering, the block, and their writing back."""
        return (self.gate_name, self.frame_name, self.gather_name, self.tiles_name, self.scatter_name)

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """Those of `names`; an input may bring all of its tiles to the last three."""
        features, tiling = run.features, self.tiling
        shape = tuple(features.shape[1:])
        rows = math.prod(tiling.grid(shape))
        padded, room = tiling.frame(features)
        one = _all_rows(1, (1, 1), features)
        tile = tiling.gather(padded, one)
        cut = (shape, tiling.side, tiling.halo)
        made = self.body(tile)
        deciding = ("tile gate", self.decider.unit.token, shape)
        body = None if self.token is None else ("tiles", self.token, tuple(tile.shape[1:]))

        def row_part(name: str, kind: str) -> PartInfo:
            return PartInfo(name, kind, self.depth, choice=name, rows=rows)

        return (
            Part(PartInfo(self.gate_name, "gate", self.depth), self.deciding, (features,), deciding),
            Part(PartInfo(self.frame_name, "frame", self.depth), tiling.frame, (features,), ("frame", *cut)),
            Part(row_part(self.gather_name, "gather"), _Gather(tiling), (padded,), ("gather", *cut)),
            Part(row_part(self.tiles_name, "tiles"), self.body, (tile,), body),
            Part(row_part(self.scatter_name, "scatter"), _Scatter(tiling), (room, made), ("scatter", *cut)),
        )

    def watched(self) -> Mapping[str, nn.Module]:
        """The gate, and the block on tiles."""
        return {self.gate_name: self.decider.gate, self.tiles_name: self.body}

    def simulate(self, run: Simulation) -> None:
        """Run the block on all tiles, and keep what the gate opened."""
        features, tiling = run.features, self.tiling
        count, grid = features.shape[0], tiling.grid(tuple(features.shape[1:]))
        drawn = len(run.log_probs)
        weights = self.decider.weights(self.decider.logits(features, run.memory, run.setting), run)
        # One decision an input: that about all of its tiles.
        run.log_probs[drawn:] = [each.view(count, -1).sum(1) for each in run.log_probs[drawn:]]
        padded, room = tiling.frame(features)
        rows = _all_rows(count, grid, features)
        made = self.body(tiling.gather(padded, rows))
        old = Tiling(tiling.side, 0).gather(room, rows)
        mixed = made * weights[:, 1, None, None, None] + old * weights[:, 0, None, None, None]
        whole = tiling.scatter(room, mixed, rows)
        run.features = whole[:, :, : features.shape[2], : features.shape[3]]
        used = weights[:, 1].view(count, -1).sum(1)
        for name in (self.gather_name, self.tiles_name, self.scatter_name):
            run.usage[name] = used

    def route(self, run: Routing) -> None:
        """Run the block on the open tiles of all inputs together."""
        features, tiling = run.features, self.tiling
        run.record(self.gate_name)
        opened = self._opened(self.decider.logits(features, run.memory, run.setting), features)
        run.show(self.gate_name, opened)
        rows = opened.nonzero(as_tuple=True)
        run.record(self.frame_name)
        padded, room = tiling.frame(features)
        if rows[0].numel():
            times = opened.flatten(1).sum(1)
            some = times.nonzero().flatten()
            for name in (self.gather_name, self.tiles_name, self.scatter_name):
                run.record(name, some, times=times[some])
            places: Rows = (rows[0], rows[1], rows[2])
            room = tiling.scatter(room, self.body(tiling.gather(padded, places)), places)
        run.features = room[:, :, : features.shape[2], : features.shape[3]]

    def _opened(self, logits: Tensor, features: Tensor) -> Tensor:
        """`b x rows x columns`, whether each tile is open."""
        return (logits.argmax(1) == 1).view(-1, *self.tiling.grid(tuple(features.shape[1:])))

    def deciding(self, features: Tensor) -> object:
        """The gate and its decision as routed mode makes them, for the stopwatch."""
        return self._opened(self.decider.logits(features, {}, {}), features).nonzero(as_tuple=True)

    def export(self, run: Simulation, exports: Exports) -> list[Op]:
        """The gate, and the block on tiles; the runner cuts them out and writes them back."""
        tiling, features = self.tiling, run.features
        picking = Picking(self.decider, exports.setting, tiling.grid(tuple(features.shape[1:])))
        gate = gate_op(exports, self.gate_name, picking, self.decider.unit, run)
        tile = tiling.gather(tiling.frame(features)[0], _all_rows(1, (1, 1), features))
        body = exports.program(self.tiles_name, self.body, tile)
        return [{"op": "tile", "gate": gate, "program": body, "side": tiling.side, "halo": tiling.halo}]


@final
class _Gather:
    """The gathering of one tile of each input, for the stopwatch."""

    def __init__(self, tiling: Tiling) -> None:
        self.tiling = tiling

    def __call__(self, padded: Tensor) -> Tensor:
        return self.tiling.gather(padded, _all_rows(len(padded), (1, 1), padded))


@final
class _Scatter:
    """The writing back of one tile of each input, for the stopwatch."""

    def __init__(self, tiling: Tiling) -> None:
        self.tiling = tiling

    def __call__(self, room: Tensor, made: Tensor) -> Tensor:
        return self.tiling.scatter(room, made, _all_rows(len(made), (1, 1), room))
