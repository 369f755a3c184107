"""AutoML search for dynamic neural networks: trained, really routed, timed on the device."""

from .evaluators.data import Data
from .evaluators.metrics import METRICS
from .evaluators.splits import SplitSpec
from .hardware.cpu import Cpu
from .hardware.cuda import Cuda
from .hardware.devices import DEVICES
from .search.handle import FrontPoint, Search
from .search.problem import Budget, Constraint, Problem, Strategy
from .search.spec_file import load_spec
from .service import SearchService
from .spaces import (
    BACKBONES,
    DECISIONS,
    FAMILIES,
    Architecture,
    EarlyExit,
    InvertedResidual,
    Policy,
    Recipe,
    Residual,
    Signature,
    Space,
    build,
)
from .spaces.errors import DynarchError

__version__ = "0.1.0"

__all__ = [
    "BACKBONES",
    "DECISIONS",
    "DEVICES",
    "FAMILIES",
    "METRICS",
    "Architecture",
    "Budget",
    "Constraint",
    "Cpu",
    "Cuda",
    "Data",
    "DynarchError",
    "EarlyExit",
    "FrontPoint",
    "InvertedResidual",
    "Policy",
    "Problem",
    "Recipe",
    "Residual",
    "Search",
    "SearchService",
    "Signature",
    "Space",
    "SplitSpec",
    "Strategy",
    "build",
    "load_spec",
]
