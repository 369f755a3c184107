"""Temporal-wise families: how much of the input is read, and how thoroughly."""

from .coarse_update import CoarseUpdate, CoarseUpdateChoice
from .padding_skip import PaddingSkip, PaddingSkipChoice
from .skip_update import SkipUpdate, SkipUpdateChoice

__all__ = [
    "CoarseUpdate",
    "CoarseUpdateChoice",
    "PaddingSkip",
    "PaddingSkipChoice",
    "SkipUpdate",
    "SkipUpdateChoice",
]
