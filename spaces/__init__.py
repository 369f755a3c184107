"""What can be built: backbones, families, decision schemes, and the networks made of them."""

from .adoption import adopt
from .architecture import Architecture
from .backbone import AbstractBackbone, Backbone, Signature
from .backbones import BACKBONES, Adopted, FrameRecurrent, InvertedResidual, Recurrent, Residual
from .decisions import DECISIONS
from .families import (
    FAMILIES,
    CoarseUpdate,
    DynamicConvolution,
    DynamicRelu,
    EarlyExit,
    FrameSelection,
    Jumping,
    LayerSkipping,
    MixtureOfExperts,
    PaddingSkip,
    SkipUpdate,
    SlimmableWidth,
    SqueezeExcitation,
    TemporalExit,
)
from .family import AbstractFamily
from .gates import GATES
from .gating import Gating
from .gradients import GRADIENTS
from .network import DynamicNetwork, Routed
from .policy import Policy
from .recipe import Recipe
from .resource import Resource
from .scope import Scope
from .space import Space, build, describe
from .trace import Recorder

__all__ = [
    "BACKBONES",
    "DECISIONS",
    "FAMILIES",
    "GATES",
    "GRADIENTS",
    "AbstractBackbone",
    "AbstractFamily",
    "Adopted",
    "Architecture",
    "Backbone",
    "CoarseUpdate",
    "DynamicConvolution",
    "DynamicNetwork",
    "DynamicRelu",
    "EarlyExit",
    "FrameRecurrent",
    "FrameSelection",
    "Gating",
    "InvertedResidual",
    "Jumping",
    "LayerSkipping",
    "MixtureOfExperts",
    "PaddingSkip",
    "Policy",
    "Recipe",
    "Recorder",
    "Recurrent",
    "Residual",
    "Resource",
    "Routed",
    "Scope",
    "Signature",
    "SkipUpdate",
    "SlimmableWidth",
    "Space",
    "SqueezeExcitation",
    "TemporalExit",
    "adopt",
    "build",
    "describe",
]
