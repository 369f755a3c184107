"""The families. Adding one: a file in its wing, a line in `FAMILIES`, a row in the tests.

The order is the order in which families change a network: first what stands in the place of blocks, then what stands
behind them, then what lets inputs out.
"""

from ..errors import UnknownNameError
from ..family import AbstractFamily
from .sample import (
    DynamicConvolution,
    DynamicRelu,
    EarlyExit,
    LayerSkipping,
    MixtureOfExperts,
    SlimmableWidth,
    SqueezeExcitation,
)
from .spatial import AdaptiveResolution, BlockSparse
from .temporal import CoarseUpdate, PaddingSkip, SkipUpdate

FAMILIES: tuple[type[AbstractFamily], ...] = (
    LayerSkipping,
    SlimmableWidth,
    MixtureOfExperts,
    SkipUpdate,
    CoarseUpdate,
    PaddingSkip,
    DynamicConvolution,
    BlockSparse,
    SqueezeExcitation,
    DynamicRelu,
    AdaptiveResolution,
    EarlyExit,
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
    "CoarseUpdate",
    "DynamicConvolution",
    "DynamicRelu",
    "EarlyExit",
    "LayerSkipping",
    "MixtureOfExperts",
    "PaddingSkip",
    "SkipUpdate",
    "SlimmableWidth",
    "SqueezeExcitation",
    "family_type",
]
