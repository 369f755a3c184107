"""Backbone: a static network seen as stem, blocks grouped in stages, head.

Families change a backbone only through this view, so a family works on every backbone that offers
what it needs, and a backbone knows no family.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from .errors import ShapeError
from .scope import Scope
from .signature import Signature as Signature
from .signature import ramp_input
from .spec import AbstractSpec


@final
class Backbone(nn.Module):
    """A built backbone.

    Args:
        stem: turns inputs into features.
        blocks: each takes the features of the one before.
        stages: number of blocks in each stage; they add up to the number of blocks.
        head: turns the last features into logits `b x c`.
        view: what exit heads see of the features after any block; the features themselves if absent.
        peek: what gates see of the features before any block; what exit heads see if absent.
        least_side: of the smallest images that it takes; None: it takes inputs of one shape only.
        raw: whether the stem takes inputs as they are; else they are brought to zero mean and unit variance before.
        skippable: whether each block adds its input to what it makes; empty: all that keep the shape of their features.

    A view and a peek have no weights but such as the head uses.

    Raises:
        ShapeError: if the stages do not add up.
    """

    def __init__(
        self,
        *,
        stem: nn.Module,
        blocks: list[nn.Module],
        stages: tuple[int, ...],
        head: nn.Module,
        view: nn.Module | None = None,
        peek: nn.Module | None = None,
        least_side: int | None = None,
        raw: bool = False,
        skippable: tuple[bool, ...] = (),
    ) -> None:
        super().__init__()
        if sum(stages) != len(blocks):
            raise ShapeError(f"stages must add up to the number of blocks, but {stages} and {len(blocks)} do not")
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.stages = stages
        self.head = head
        self.view = nn.Identity() if view is None else view
        self.peek = self.view if peek is None else peek
        self.least_side = least_side
        self.raw = raw
        self.skippable = skippable

    def forward(self, x: Tensor) -> Tensor:
        """Logits `b x c` of the plain, static network."""
        features = self.stem(x)
        for block in self.blocks:
            features = block(features)
        logits: Tensor = self.head(features)
        return logits


@final
@dataclass(frozen=True)
class Outline:
    """What a family needs to know of a backbone before it is built.

    Args:
        stages: number of blocks in each stage.
        feature_shapes: shape of the features after each block, without the batch.
        block_macs: multiply-accumulates of each block for one input.
        classes: number of classes.
        stem_shape: shape of the features after the stem, without the batch.
        narrowable: whether a slice of each block's inner channels can run alone.
        view_shapes: shape of what exit heads see after each block; empty: the features.
        peek_shapes: shape of what gates see before each block; empty: the features.
        selective: whether each block can run with inner channels that are picked for each input.
        kind: of the inputs.
        input_shape: of one input.
        least_side: of the smallest images that it takes; None: it takes inputs of one shape only.
        tileable: whether each block can run on tiles of its features.
        reads: whether each block reads a piece of the input, and may leave it out.
        pads: whether each block's piece may hold nothing but padding.
        skippable: whether each block adds its input to what it makes; empty: all that keep the shape of their features.
    """

    stages: tuple[int, ...]
    feature_shapes: tuple[tuple[int, ...], ...]
    block_macs: tuple[int, ...]
    classes: int
    stem_shape: tuple[int, ...] = ()
    narrowable: tuple[bool, ...] = ()
    view_shapes: tuple[tuple[int, ...], ...] = ()
    peek_shapes: tuple[tuple[int, ...], ...] = ()
    selective: tuple[bool, ...] = ()
    kind: str = "image"
    input_shape: tuple[int, ...] = ()
    least_side: int | None = None
    tileable: tuple[bool, ...] = ()
    reads: tuple[bool, ...] = ()
    pads: tuple[bool, ...] = ()
    skippable: tuple[bool, ...] = ()

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.feature_shapes)

    def before(self, block: int) -> tuple[int, ...]:
        """Shape of the features that go into a block."""
        return self.feature_shapes[block - 1] if block else self.stem_shape

    def of_stage(self, stage: int) -> range:
        """The blocks of a stage."""
        first = sum(self.stages[:stage])
        return range(first, first + self.stages[stage])

    def stage(self, block: int) -> int:
        """The stage that a block is in."""
        return next(stage for stage in range(len(self.stages)) if block in self.of_stage(stage))

    def viewed(self, block: int) -> tuple[int, ...]:
        """Shape of what an exit head after a block sees."""
        return self.view_shapes[block] if self.view_shapes else self.feature_shapes[block]

    def peeked(self, block: int) -> tuple[int, ...]:
        """Shape of what a gate before a block sees."""
        return self.peek_shapes[block] if self.peek_shapes else self.before(block)

    def showing(self, shape: tuple[int, ...]) -> Outline:
        """The same outline with gates that see something of this shape."""
        return replace(self, peek_shapes=(shape,) * self.blocks)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Blocks that read a piece of the input each."""
        return tuple(i for i, reads in enumerate(self.reads) if reads)

    @property
    def residual(self) -> tuple[int, ...]:
        """Blocks whose features have the shape of their inputs: without such a block the network still fits."""
        same = (i for i, shape in enumerate(self.feature_shapes) if shape == self.before(i))
        return tuple(i for i in same if not self.skippable or self.skippable[i])


class AbstractNarrowable(nn.Module, abc.ABC):
    """A block of which a contiguous slice of the inner channels can run alone."""

    @abc.abstractmethod
    def narrowed(self, share: float) -> nn.Module:
        """The block with the first `share` of its inner channels: shared convolutions, normalisation of its own.

        Slices start at the first channel, so a narrow one lies within every wider one.
        """


class AbstractSelective(nn.Module, abc.ABC):
    """A block of which any few inner channels can run alone, others for each input."""

    @property
    @abc.abstractmethod
    def inner_channels(self) -> int:
        """How many there are."""

    @abc.abstractmethod
    def selected(self) -> nn.Module:
        """The block with its inner channels scaled, and picked where it is told which; it shares the convolutions.

        Called with features `b x ...`, scales and picked channels. Scales `b x inner` and None: all channels are
        computed. Scales `b x k` and numbers `b x k`: these are, with gathered weights.
        """


class AbstractTileable(nn.Module, abc.ABC):
    """A block that can run on square tiles of its features, each on its own.

    `halo` is how far it sees: a tile of side `s` follows from `s + 2 halo` numbers a side.
    """

    halo: int

    @abc.abstractmethod
    def on_tiles(self) -> nn.Module:
        """The same block, over the same weights, without padding: tiles with their halo `n x c x (s + 2 halo) x ..` ->
        `n x c' x s x s`."""


class AbstractChunk(nn.Module, abc.ABC):
    """A block that reads the next piece of the input, of which the features hold what is unread; see `packed`."""

    pads: bool  # whether the piece may hold nothing but padding
    taken: int  # numbers of the features that reading it takes away

    @abc.abstractmethod
    def presence(self) -> nn.Module:
        """A gate by rule: features -> logits `b x 2`, the second ahead where there is anything to read."""

    @abc.abstractmethod
    def dropped(self) -> nn.Module:
        """What leaves the piece out instead."""

    @abc.abstractmethod
    def small(self, share: float) -> nn.Module:
        """A fresh, cheaper reader that changes the first `share` of what the network knows."""

    @abc.abstractmethod
    def read_by(self, reader: nn.Module) -> nn.Module:
        """The same piece, read by such a reader."""


def _rnn_flops(x: Any, weights: Any, recurrent_weights: Any, *_: Any, out_shape: Any = None) -> int:
    """Shapes of an LSTM kernel's inputs `t x b x i` and weights -> operations."""
    return int(2 * x[0] * x[1] * (math.prod(weights) + math.prod(recurrent_weights)))


def _attention_flops(
    query: Any, key: Any, value: Any, *_: Any, attn_mask: Any = None, scale: Any = None, out_shape: Any = None
) -> int:
    """Shapes `b x heads x n x d` -> operations."""
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


_KERNELS: dict[Any, Any] = {  # which torch's own counter leaves at zero
    torch.ops.aten.mkldnn_rnn_layer: _rnn_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
}


@torch.no_grad()
def work_of(module: nn.Module, features: Tensor) -> int:
    """Multiply-accumulates of a module on features `1 x ...`."""
    counter = FlopCounterMode(display=False, custom_mapping=_KERNELS)
    with counter:
        module(features)
    return int(counter.get_total_flops()) // 2  # two operations a multiply-accumulate


def outline(backbone: Backbone, signature: Signature) -> Outline:
    """The outline of a backbone, by running it once.

    Raises:
        ShapeError: if the backbone cannot take inputs of that shape.
    """
    x = ramp_input(signature, next(backbone.parameters()))
    shapes, macs, views, peeks = [], [], [], []
    try:
        with torch.no_grad():
            features = backbone.stem(x)
            stem_shape = tuple(features.shape[1:])
            for block in backbone.blocks:
                peeks.append(tuple(backbone.peek(features).shape[1:]))
                macs.append(work_of(block, features))
                features = block(features)
                shapes.append(tuple(features.shape[1:]))
                views.append(tuple(backbone.view(features).shape[1:]))
            logits = backbone.head(features)
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise ShapeError(f"this backbone cannot take inputs of shape {signature.input_shape}: {first}") from None
    if tuple(logits.shape) != (1, signature.classes):
        raise ShapeError(f"the head must give 1 x {signature.classes} logits, but gave {tuple(logits.shape)}")
    narrowable = tuple(isinstance(block, AbstractNarrowable) for block in backbone.blocks)
    return Outline(
        backbone.stages,
        tuple(shapes),
        tuple(macs),
        signature.classes,
        stem_shape,
        narrowable,
        tuple(views),
        tuple(peeks),
        tuple(isinstance(block, AbstractSelective) for block in backbone.blocks),
        signature.kind,
        signature.input_shape,
        backbone.least_side,
        tuple(isinstance(block, AbstractTileable) for block in backbone.blocks),
        tuple(isinstance(block, AbstractChunk) for block in backbone.blocks),
        tuple(isinstance(block, AbstractChunk) and block.pads for block in backbone.blocks),
        backbone.skippable,
    )


@dataclass(frozen=True)
class AbstractBackbone(AbstractSpec):
    """A kind of backbone and the ranges in which a search may vary it.

    A member is one file in `spaces/backbones/` and one line in `BACKBONES`. Its fields are the ranges;
    one concrete network is described by its `choice_type`.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    choice_type: ClassVar[type[AbstractSpec]]
    kinds: ClassVar[tuple[str, ...]] = ("image",)  # of inputs that it takes

    @abc.abstractmethod
    def suggest(self, scope: Scope) -> Any:
        """Ask the scope for one choice."""

    @abc.abstractmethod
    def extremes(self) -> tuple[Any, Any]:
        """The smallest and the largest choice: the static baselines of every search."""

    @abc.abstractmethod
    def size(self) -> int:
        """How many choices there are."""

    @classmethod
    @abc.abstractmethod
    def build(cls, choice: Any, signature: Signature) -> Backbone:
        """The network of a choice, with fresh weights.

        Raises:
            ShapeError: if the inputs do not suit it.
        """

    @classmethod
    @abc.abstractmethod
    def describe(cls, choice: Any) -> str:
        """A few characters for tables, such as `residual w16 d2-2-2`."""
