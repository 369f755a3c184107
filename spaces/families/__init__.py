"""The families. Adding one: a file in its wing, a line in `FAMILIES`, a row in the tests.

The order is the order in which families change a network: first what stands in the place of blocks, then what stands
behind them, then what lets inputs out, then what hands on less than it gets.
"""

from ..errors import UnknownNameError
from ..family import AbstractFamily
from .sample import (
    BranchRouting,
    Cascade,
    ChannelSaliency,
    DynamicConvolution,
    DynamicRelu,
    EarlyExit,
    LayerSkipping,
    MixtureOfExperts,
    SlimmableWidth,
    SqueezeExcitation,
)
from .spatial import AdaptiveResolution, BlockSparse, GlanceAndFocus, TokenMerging, TokenPruning
from .temporal import CoarseUpdate, FrameSelection, Jumping, PaddingSkip, SkipUpdate, TemporalExit

FAMILIES: tuple[type[AbstractFamily], ...] = (
    LayerSkipping,
    SlimmableWidth,
    ChannelSaliency,
    BranchRouting,
    MixtureOfExperts,
    SkipUpdate,
    CoarseUpdate,
    Jumping,
    FrameSelection,
    PaddingSkip,
    DynamicConvolution,
    BlockSparse,
    SqueezeExcitation,
    DynamicRelu,
    Cascade,
    AdaptiveResolution,
    EarlyExit,
    TemporalExit,
    GlanceAndFocus,
    TokenPruning,
    TokenMerging,
)


def family_type(name: str, path: str = "families") -> type[AbstractFamily]:
    """The family of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    for member in FAMILIES:
        if member.name == name:
            return member
    raise UnknownNameError(path, name, [member.name for member in FAMILIES])


__all__ = [
    "FAMILIES",
    "AdaptiveResolution",
    "BlockSparse",
    "BranchRouting",
    "Cascade",
    "ChannelSaliency",
    "CoarseUpdate",
    "DynamicConvolution",
    "DynamicRelu",
    "EarlyExit",
    "FrameSelection",
    "GlanceAndFocus",
    "Jumping",
    "LayerSkipping",
    "MixtureOfExperts",
    "PaddingSkip",
    "SkipUpdate",
    "SlimmableWidth",
    "SqueezeExcitation",
    "TemporalExit",
    "TokenMerging",
    "TokenPruning",
    "family_type",
]
