"""Sample-wise families: what runs depends on the whole input."""

from .branch_routing import BranchRouting, BranchRoutingChoice
from .cascade import Cascade, CascadeChoice
from .channel_saliency import ChannelSaliency, ChannelSaliencyChoice
from .dynamic_convolution import DynamicConvolution, DynamicConvolutionChoice
from .dynamic_relu import DynamicRelu, DynamicReluChoice
from .early_exit import EarlyExit, EarlyExitChoice
from .layer_skipping import LayerSkipping, LayerSkippingChoice
from .mixture_of_experts import MixtureOfExperts, MixtureOfExpertsChoice
from .slimmable_width import SlimmableWidth, SlimmableWidthChoice
from .squeeze_excitation import SqueezeExcitation, SqueezeExcitationChoice

__all__ = [
    "BranchRouting",
    "BranchRoutingChoice",
    "Cascade",
    "CascadeChoice",
    "ChannelSaliency",
    "ChannelSaliencyChoice",
    "DynamicConvolution",
    "DynamicConvolutionChoice",
    "DynamicRelu",
    "DynamicReluChoice",
    "EarlyExit",
    "EarlyExitChoice",
    "LayerSkipping",
    "LayerSkippingChoice",
    "MixtureOfExperts",
    "MixtureOfExpertsChoice",
    "SlimmableWidth",
    "SlimmableWidthChoice",
    "SqueezeExcitation",
    "SqueezeExcitationChoice",
]
