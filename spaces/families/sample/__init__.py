"""Sample-wise families: what runs depends on the whole input."""

from .early_exit import EarlyExit, EarlyExitChoice
from .layer_skipping import LayerSkipping, LayerSkippingChoice

__all__ = ["EarlyExit", "EarlyExitChoice", "LayerSkipping", "LayerSkippingChoice"]
