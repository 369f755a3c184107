"""Families that treat places of an input, or its resolution, differently."""

from .adaptive_resolution import AdaptiveResolution

__all__ = ["AdaptiveResolution"]
