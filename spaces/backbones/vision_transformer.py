"""Vision transformer for small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn
from torch.nn import functional

from ..backbone import AbstractBackbone, Backbone, Signature
from ..scope import Scope
from ..spec import AbstractSpec, require, require_name, require_options
from ..tokens import QUERIES, TokenStem, TransformerBlock, token_backbone
from .residual import image_channels


@final
class PatchEmbedding(nn.Module):
    """Squares of an image become tokens; `b x c x h x w` -> values `b x n x d`, masses `b x n`.

    An image whose sides are no multiples of the square's is padded with zeros: the mean, once it is normalised.
    """

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.project = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of squares, one after the other."""
        down, right = (-side % self.patch for side in x.shape[2:])
        if down or right:
            x = functional.pad(x, (0, right, 0, down))
        values = self.project(x).flatten(2).transpose(1, 2)
        return values, values.new_ones(values.shape[:2])


@final
@dataclass(frozen=True)
class VisionTransformerChoice(AbstractSpec):
    """One vision transformer.

    Args:
        patch: side of the squares that become tokens, in pixels.
        width: numbers of a token.
        depth: blocks.
        heads: of attention.
        expansion: hidden units of a block's perceptron as a multiple of the width.
        query: what is classified: the `mean` of all tokens, or a `class` token.
    """

    patch: int
    width: int
    depth: int
    heads: int
    expansion: int
    query: str

    def check(self) -> None:
        """Positive sizes; heads share the width."""
        for name in ("patch", "width", "depth", "heads", "expansion"):
            require(getattr(self, name) >= 1, name, f"must be at least 1, but got {getattr(self, name)}")
        require(self.width % self.heads == 0, "heads", f"must divide the width {self.width}, but got {self.heads}")
        require_name("query", self.query, QUERIES)


@final
@dataclass(frozen=True)
class VisionTransformer(AbstractBackbone):
    """Squares of an image as tokens, transformer blocks of one width, one stage.

    Args:
        patch: sides of the squares to choose from, in pixels.
        width: numbers of a token to choose from.
        depth: numbers of blocks to choose from.
        heads: numbers of heads to choose from; each divides every width.
        expansion: hidden units of a perceptron as multiples of the width, to choose from.
        query: what is classified, to choose from: `mean`, `class`.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.
    """

    name: ClassVar[str] = "vision_transformer"
    source: ClassVar[str] = "Dosovitskiy et al., ICLR 2021"
    choice_type: ClassVar[type[AbstractSpec]] = VisionTransformerChoice

    patch: tuple[int, ...] = (2, 4)
    width: tuple[int, ...] = (24, 48)
    depth: tuple[int, ...] = (2, 4)
    heads: tuple[int, ...] = (4,)
    expansion: tuple[int, ...] = (2,)
    query: tuple[str, ...] = ("class",)

    def check(self) -> None:
        """Options present, distinct, possible together."""
        for name in ("patch", "width", "depth", "heads", "expansion"):
            options = getattr(self, name)
            require_options(name, options)
            require(min(options) >= 1, name, f"must be at least 1, but got {list(options)}")
        for index, heads in enumerate(self.heads):
            fits = all(width % heads == 0 for width in self.width)
            require(fits, f"heads.{index}", f"must divide every width of {list(self.width)}, but got {heads}")
        require_options("query", self.query, QUERIES)

    def suggest(self, scope: Scope) -> VisionTransformerChoice:
        """One question an option."""
        return VisionTransformerChoice(
            scope.categorical("patch", self.patch),
            scope.categorical("width", self.width),
            scope.categorical("depth", self.depth),
            scope.categorical("heads", self.heads),
            scope.categorical("expansion", self.expansion),
            scope.categorical("query", self.query),
        )

    def extremes(self) -> tuple[VisionTransformerChoice, VisionTransformerChoice]:
        """The largest squares and the least of everything else; the opposite. A class token is one more to work on."""
        queries = sorted(self.query, key=QUERIES.index)
        small = (max(self.patch), min(self.width), min(self.depth), min(self.heads), min(self.expansion), queries[0])
        large = (min(self.patch), max(self.width), max(self.depth), max(self.heads), max(self.expansion), queries[-1])
        return VisionTransformerChoice(*small), VisionTransformerChoice(*large)

    def size(self) -> int:
        """The product of the options."""
        sizes = len(self.patch) * len(self.width) * len(self.depth)
        return sizes * len(self.heads) * len(self.expansion) * len(self.query)

    @classmethod
    def build(cls, choice: VisionTransformerChoice, signature: Signature) -> Backbone:
        """A fresh network for `channels x height x width` images."""
        channels = image_channels(signature, halvings=0)
        _, height, width = signature.input_shape
        tokens = -(-height // choice.patch) * -(-width // choice.patch)
        embed = PatchEmbedding(channels, choice.width, choice.patch)
        stem = TokenStem(embed, tokens=tokens, width=choice.width, query=choice.query)
        hidden = choice.expansion * choice.width
        blocks = [TransformerBlock(choice.width, choice.heads, hidden, weighted=False) for _ in range(choice.depth)]
        return token_backbone(stem, blocks, width=choice.width, query=choice.query, classes=signature.classes)

    @classmethod
    def describe(cls, choice: VisionTransformerChoice) -> str:
        """Such as `vit p4 w48 d4 h4 e2 class`."""
        sizes = f"p{choice.patch} w{choice.width} d{choice.depth} h{choice.heads} e{choice.expansion}"
        return f"vit {sizes} {choice.query}"
