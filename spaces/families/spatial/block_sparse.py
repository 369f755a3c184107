"""Block-sparse convolutions: a block runs only on the tiles of an image that need it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

from ...backbone import AbstractTileable, Outline
from ...block_family import AbstractBlockChoice
from ...family import AbstractFamily
from ...gated import EXPLORE, OPENING, PLACEMENTS, placed, require_blocks
from ...gates.spatial import Spatial
from ...gating import Gating, GatingChoice
from ...plan import Plan
from ...resource import Resource, ResourceChoice, ResourceTarget
from ...scope import Scope
from ...spec import AbstractSpec, require, require_options, require_range
from ...tile_step import TileStep, Tiling


@final
@dataclass(frozen=True)
class BlockSparseChoice(AbstractBlockChoice):
    """Which blocks run on tiles, how large these are, and how that is learnt.

    Args:
        tiles: side of the tiles of each block.
        gating: the gate is `spatial`; how it learns.
        target: what training charges for; a rate is a share of open tiles.
    """

    tiles: tuple[int, ...]
    gating: GatingChoice
    target: ResourceChoice

    def check_options(self) -> None:
        """A side for each block, the spatial gate."""
        count = len(self.tiles)
        require(count == len(self.blocks), "tiles", f"must have one side a block, but got {count}")
        for index, side in enumerate(self.tiles):
            require_range(f"tiles.{index}", side, 1, 1024)
        kind = self.gating.gate
        require(
            kind == Spatial.name, "gating.gate", f"must be {Spatial.name!r}: others cannot tell tiles, got {kind!r}"
        )


@final
@dataclass(frozen=True)
class BlockSparse(AbstractFamily):
    """A gate opens tiles of the features; they are gathered with a halo, the block runs on them, and they are written
    back over the features that passed the block by.

    Fine tiles fit the image and cost more to gather; where the gathering outweighs the saving, the latency table says
    so. A tile as large as the features would be layer skipping, and is not offered.

    Args:
        placement: which of the blocks that can run on tiles; to choose from.
        tile: sides of tiles to choose from, for each stage on its own.
        gating: gradient estimators; the gate is the spatial one.
        target: what training charges for.

    The knob `block_sparse` moves all tiles of all gates at run time.

    Source: Verelst, Tuytelaars, "Dynamic Convolutions: Exploiting Spatial Sparsity for Faster Inference", CVPR 2020;
        Ren, Pokrovsky, Yang, Urtasun, "SBNet", CVPR 2018; a tile size for each stage from Han et al., "Latency-Aware
        Spatial-wise Dynamic Networks", NeurIPS 2022.
    """

    name: ClassVar[str] = "block_sparse"
    wing: ClassVar[str] = "spatial"
    switches: ClassVar[str] = "tile"
    source: ClassVar[str] = "Verelst, Tuytelaars, CVPR 2020"
    choice_type: ClassVar[type[AbstractSpec]] = BlockSparseChoice
    rewrites_blocks: ClassVar[bool] = True

    placement: tuple[str, ...] = ("all", "alternate")
    tile: tuple[int, ...] = (2, 4, 8)
    gating: Gating = field(default_factory=lambda: Gating(gate=(Spatial.name,)))
    target: Resource = field(default_factory=Resource)

    def check(self) -> None:
        """Known placements, possible sides, the spatial gate."""
        require_options("placement", self.placement, PLACEMENTS)
        require_options("tile", self.tile)
        for index, side in enumerate(self.tile):
            require_range(f"tile.{index}", side, 1, 1024)
        require_options("gating.gate", self.gating.gate, (Spatial.name,))

    def suggest(self, scope: Scope, outline: Outline) -> BlockSparseChoice | None:
        """Blocks, a side for each stage that has one, then how the gate learns, then the target."""
        options = self._options(outline)
        if not options:
            return None
        blocks = options[scope.categorical(f"placement_of_{len(self._usable(outline))}", tuple(options))]
        sides: dict[int, int] = {}
        for stage in self._stages(blocks, outline):
            known = self._sides(stage, outline)
            # Stages differ in how large a tile may be, and a name always means the same range.
            sides[stage] = (scope / f"tile_up_to_{known[-1]}").categorical(str(stage), known)
        tiles = tuple(sides[outline.stage(block)] for block in blocks)
        gating, target = _as_pooled(self.gating).suggest(scope / "gating", outline), self.target
        return BlockSparseChoice(blocks, tiles, _spatial(gating), target.suggest(scope / "target", outline))

    def size(self, outline: Outline) -> int:
        """Sum over placements of the sides of their stages, x estimators x targets."""
        sides = (
            math.prod(len(self._sides(stage, outline)) for stage in self._stages(blocks, outline))
            for blocks in self._options(outline).values()
        )
        return sum(sides) * _as_pooled(self.gating).size(outline) * self.target.size(outline)

    def cover(self, outline: Outline) -> Iterator[BlockSparseChoice]:
        """Every placement with every side that a stage of it can have."""
        for blocks in self._options(outline).values():
            known = {stage: self._sides(stage, outline) for stage in self._stages(blocks, outline)}
            for number in range(max(map(len, known.values()))):
                sides = {stage: each[min(number, len(each) - 1)] for stage, each in known.items()}
                tiles = tuple(sides[outline.stage(block)] for block in blocks)
                gating = _spatial(_as_pooled(self.gating).cover(outline)[0])
                yield BlockSparseChoice(blocks, tiles, gating, self.target.cover(outline)[0])

    def cuts(self, outline: Outline) -> Iterator[BlockSparseChoice]:
        """Every placement once."""
        made = {choice.blocks: choice for choice in self.cover(outline)}
        return iter(made.values())

    def decisions(self) -> tuple[str, ...]:
        """None: nobody leaves."""
        return ()

    def schemes(self) -> tuple[str, ...]:
        """The spatial gate."""
        return self.gating.gate

    def _options(self, outline: Outline) -> dict[str, tuple[int, ...]]:
        return placed(self._usable(outline), self.placement)

    def _usable(self, outline: Outline) -> tuple[int, ...]:
        """Blocks that can run on tiles, in stages where some tile is smaller than the features."""
        return tuple(block for block in tileable(outline) if self._sides(outline.stage(block), outline))

    def _stages(self, blocks: tuple[int, ...], outline: Outline) -> tuple[int, ...]:
        return tuple(dict.fromkeys(outline.stage(block) for block in blocks))

    def _sides(self, stage: int, outline: Outline) -> tuple[int, ...]:
        """The tiles that are smaller than the features of a stage, by rising side."""
        most = max(max(outline.feature_shapes[block][1:], default=0) for block in outline.of_stage(stage))
        return tuple(sorted(side for side in self.tile if side < most))

    @classmethod
    def apply(cls, choice: BlockSparseChoice, plan: Plan) -> None:
        """Put a step that runs on tiles in the place of each block."""
        outline = plan.outline
        require_blocks(choice.blocks, tileable(outline), "keeps the shape of its features and can run on tiles")
        names, rows = [], {}
        for index, (block, side) in enumerate(zip(choice.blocks, choice.tiles, strict=True)):
            shape = outline.before(block)
            message = f"covers the whole {shape[1]} x {shape[2]} features with tiles of {side}; use layer_skipping"
            require(side < max(shape[1:]), f"tiles.{index}", message)
            module = plan.block(block)
            assert isinstance(module, AbstractTileable)
            (unit,) = Spatial(side).build(shape, [shape], 2, OPENING).units
            tiling = Tiling(side, module.halo)
            step = TileStep(
                index,
                unit,
                module.on_tiles(),
                tiling,
                gradient=choice.gating.estimator(),
                knob=cls.name,
                place=(index + 1) / len(choice.blocks),
                explore=EXPLORE,
                token=id(module),
            )
            plan.replace(block, step)
            names.append((step.tiles_name,))
            rows[step.tiles_name] = math.prod(tiling.grid(shape))
        plan.charge(ResourceTarget(tuple(names), choice.target, rows))

    @classmethod
    def describe(cls, choice: BlockSparseChoice) -> str:
        """Such as `tiles 4,2 at 0,2 gumbel 0.6 latency`."""
        sides = ",".join(map(str, choice.tiles))
        return f"tiles {sides} at {choice.places} {choice.gating.gradient} {choice.target.describe()}"


def tileable(outline: Outline) -> tuple[int, ...]:
    """Blocks that keep the shape of their features and can run on tiles."""
    able = outline.tileable or (False,) * outline.blocks
    return tuple(block for block in outline.residual if able[block])


def _as_pooled(gating: Gating) -> Gating:
    """The same ranges with a gate that fits everywhere: whether the spatial one does is told by the tiles."""
    return replace(gating, gate=("pooled_linear",))


def _spatial(choice: GatingChoice) -> GatingChoice:
    return replace(choice, gate=Spatial.name)
