"""Sample-wise families: what runs depends on the whole input."""

from .early_exit import EarlyExit, EarlyExitChoice

__all__ = ["EarlyExit", "EarlyExitChoice"]
