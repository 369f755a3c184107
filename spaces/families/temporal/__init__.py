"""Temporal-wise families: how much of the input is read, and how thoroughly."""

from .coarse_update import CoarseUpdate, CoarseUpdateChoice
from .frame_selection import FrameSelection, FrameSelectionChoice
from .jumping import Jumping, JumpingChoice
from .padding_skip import PaddingSkip, PaddingSkipChoice
from .skip_update import SkipUpdate, SkipUpdateChoice
from .temporal_exit import TemporalExit, TemporalExitChoice

__all__ = [
    "CoarseUpdate",
    "CoarseUpdateChoice",
    "FrameSelection",
    "FrameSelectionChoice",
    "Jumping",
    "JumpingChoice",
    "PaddingSkip",
    "PaddingSkipChoice",
    "SkipUpdate",
    "SkipUpdateChoice",
    "TemporalExit",
    "TemporalExitChoice",
]
