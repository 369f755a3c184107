"""AutoML search for dynamic neural networks: trained, really routed, timed on the device."""

from .evaluators.data import Data
from .evaluators.metrics import METRICS
from .evaluators.splits import SplitSpec
from .hardware.cpu import Cpu
from .hardware.cuda import Cuda
from .hardware.devices import DEVICES
from .search.front_point import FrontPoint
from .search.handle import Search
from .search.placement import Cluster
from .search.problem import Budget, Constraint, Problem, Strategy
from .search.spec_file import load_spec
from .service import SearchService
from .spaces import (
    BACKBONES,
    DECISIONS,
    FAMILIES,
    GATES,
    GRADIENTS,
    Adopted,
    Architecture,
    CoarseUpdate,
    DynamicConvolution,
    DynamicRelu,
    EarlyExit,
    FrameRecurrent,
    FrameSelection,
    Gating,
    InvertedResidual,
    Jumping,
    LayerSkipping,
    MixtureOfExperts,
    PaddingSkip,
    Policy,
    Recipe,
    Recurrent,
    Residual,
    Resource,
    Signature,
    SkipUpdate,
    SlimmableWidth,
    Space,
    SqueezeExcitation,
    TemporalExit,
    adopt,
    build,
)
from .spaces.errors import DynarchError

__version__ = "0.1.0"

__all__ = [
    "BACKBONES",
    "DECISIONS",
    "DEVICES",
    "FAMILIES",
    "GATES",
    "GRADIENTS",
    "METRICS",
    "Adopted",
    "Architecture",
    "Budget",
    "Cluster",
    "CoarseUpdate",
    "Constraint",
    "Cpu",
    "Cuda",
    "Data",
    "DynamicConvolution",
    "DynamicRelu",
    "DynarchError",
    "EarlyExit",
    "FrameRecurrent",
    "FrameSelection",
    "FrontPoint",
    "Gating",
    "InvertedResidual",
    "Jumping",
    "LayerSkipping",
    "MixtureOfExperts",
    "PaddingSkip",
    "Policy",
    "Problem",
    "Recipe",
    "Recurrent",
    "Residual",
    "Resource",
    "Search",
    "SearchService",
    "Signature",
    "SkipUpdate",
    "SlimmableWidth",
    "Space",
    "SplitSpec",
    "SqueezeExcitation",
    "Strategy",
    "TemporalExit",
    "adopt",
    "build",
    "load_spec",
]
