"""Sample-wise families: what runs depends on the whole input."""

from .early_exit import EarlyExit, EarlyExitChoice
from .layer_skipping import LayerSkipping, LayerSkippingChoice
from .mixture_of_experts import MixtureOfExperts, MixtureOfExpertsChoice
from .slimmable_width import SlimmableWidth, SlimmableWidthChoice

__all__ = [
    "EarlyExit",
    "EarlyExitChoice",
    "LayerSkipping",
    "LayerSkippingChoice",
    "MixtureOfExperts",
    "MixtureOfExpertsChoice",
    "SlimmableWidth",
    "SlimmableWidthChoice",
]
