"""What can be built: backbones, families, decision schemes, and the networks made of them."""

from .architecture import Architecture
from .backbone import AbstractBackbone, Backbone, Signature
from .backbones import BACKBONES, InvertedResidual, Residual
from .decisions import DECISIONS
from .families import FAMILIES, EarlyExit
from .family import AbstractFamily
from .network import DynamicNetwork, Routed
from .policy import Policy
from .recipe import Recipe
from .scope import Scope
from .space import Space, build, describe
from .trace import Recorder

__all__ = [
    "BACKBONES",
    "DECISIONS",
    "FAMILIES",
    "AbstractBackbone",
    "AbstractFamily",
    "Architecture",
    "Backbone",
    "DynamicNetwork",
    "EarlyExit",
    "InvertedResidual",
    "Policy",
    "Recipe",
    "Recorder",
    "Residual",
    "Routed",
    "Scope",
    "Signature",
    "Space",
    "build",
    "describe",
]
