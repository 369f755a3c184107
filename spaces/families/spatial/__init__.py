"""Families that treat places of an input, or its resolution, differently."""

from .adaptive_resolution import AdaptiveResolution
from .block_sparse import BlockSparse

__all__ = ["AdaptiveResolution", "BlockSparse"]
