"""Text transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn

from ..backbone import AbstractBackbone, Backbone, Signature
from ..scope import Scope
from ..signature import require_kind
from ..spec import AbstractSpec, require, require_name, require_options
from ..tokens import QUERIES, TokenStem, TransformerBlock, token_backbone


@final
class WordEmbedding(nn.Module):
    """Ids of words become tokens: `b x n` numbers, 0 for padding -> values `b x n x d`, masses `b x n`."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width, padding_idx=0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Padding has no mass."""
        return self.words(x.long()), (x > 0).to(x.dtype)


@final
@dataclass(frozen=True)
class TextTransformerChoice(AbstractSpec):
    """One text transformer.

    Args:
        width: numbers of a token.
        depth: blocks.
        heads: of attention.
        expansion: hidden units of a block's perceptron as a multiple of the width.
        query: what is classified: the `mean` of all words, or a `class` token.
    """

    width: int
    depth: int
    heads: int
    expansion: int
    query: str

    def check(self) -> None:
        """Positive sizes; heads share the width."""
        for name in ("width", "depth", "heads", "expansion"):
            require(getattr(self, name) >= 1, name, f"must be at least 1, but got {getattr(self, name)}")
        require(self.width % self.heads == 0, "heads", f"must divide the width {self.width}, but got {self.heads}")
        require_name("query", self.query, QUERIES)


@final
@dataclass(frozen=True)
class TextTransformer(AbstractBackbone):
    """Embedded words at learnt positions, transformer blocks of one width, one stage; padding influences nothing.

    Args:
        width: numbers of a token to choose from.
        depth: numbers of blocks to choose from.
        heads: numbers of heads to choose from; each divides every width.
        expansion: hidden units of a perceptron as multiples of the width, to choose from.
        query: what is classified, to choose from: `mean`, `class`.

    Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017; learnt positions and class token as in Devlin,
        Chang, Lee, Toutanova, "BERT", NAACL 2019.
    """

    name: ClassVar[str] = "text_transformer"
    source: ClassVar[str] = "Vaswani et al., NeurIPS 2017"
    choice_type: ClassVar[type[AbstractSpec]] = TextTransformerChoice
    kinds: ClassVar[tuple[str, ...]] = ("text",)

    width: tuple[int, ...] = (24, 48)
    depth: tuple[int, ...] = (2, 4)
    heads: tuple[int, ...] = (4,)
    expansion: tuple[int, ...] = (2,)
    query: tuple[str, ...] = ("mean",)

    def check(self) -> None:
        """Options present, distinct, possible together."""
        for name in ("width", "depth", "heads", "expansion"):
            options = getattr(self, name)
            require_options(name, options)
            require(min(options) >= 1, name, f"must be at least 1, but got {list(options)}")
        for index, heads in enumerate(self.heads):
            fits = all(width % heads == 0 for width in self.width)
            require(fits, f"heads.{index}", f"must divide every width of {list(self.width)}, but got {heads}")
        require_options("query", self.query, QUERIES)

    def suggest(self, scope: Scope) -> TextTransformerChoice:
        """One question an option."""
        return TextTransformerChoice(
            scope.categorical("width", self.width),
            scope.categorical("depth", self.depth),
            scope.categorical("heads", self.heads),
            scope.categorical("expansion", self.expansion),
            scope.categorical("query", self.query),
        )

    def extremes(self) -> tuple[TextTransformerChoice, TextTransformerChoice]:
        """The least and the most of everything; a class token is one more to work on."""
        queries = sorted(self.query, key=QUERIES.index)
        small = (min(self.width), min(self.depth), min(self.heads), min(self.expansion), queries[0])
        large = (max(self.width), max(self.depth), max(self.heads), max(self.expansion), queries[-1])
        return TextTransformerChoice(*small), TextTransformerChoice(*large)

    def size(self) -> int:
        """The product of the options."""
        sizes = len(self.width) * len(self.depth) * len(self.heads)
        return sizes * len(self.expansion) * len(self.query)

    @classmethod
    def build(cls, choice: TextTransformerChoice, signature: Signature) -> Backbone:
        """A fresh network for texts."""
        require_kind(signature, cls.kinds, cls.name)
        assert signature.vocabulary is not None
        embed = WordEmbedding(signature.vocabulary, choice.width)
        stem = TokenStem(embed, tokens=signature.input_shape[0], width=choice.width, query=choice.query)
        hidden = choice.expansion * choice.width
        blocks = [TransformerBlock(choice.width, choice.heads, hidden, weighted=True) for _ in range(choice.depth)]
        return token_backbone(stem, blocks, width=choice.width, query=choice.query, classes=signature.classes)

    @classmethod
    def describe(cls, choice: TextTransformerChoice) -> str:
        """Such as `text transformer w48 d4 h4 e2 mean`."""
        sizes = f"w{choice.width} d{choice.depth} h{choice.heads} e{choice.expansion}"
        return f"text transformer {sizes} {choice.query}"
