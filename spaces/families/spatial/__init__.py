"""Families that treat places of an input, or its resolution, differently."""

from .adaptive_resolution import AdaptiveResolution
from .block_sparse import BlockSparse
from .glance_and_focus import GlanceAndFocus
from .token_merging import TokenMerging
from .token_pruning import TokenPruning

__all__ = ["AdaptiveResolution", "BlockSparse", "GlanceAndFocus", "TokenMerging", "TokenPruning"]
