"""Frozen backbone: heads of exits are trained on features that are computed once for all candidates.

Gradients of one exit reach no other where the backbone learns nothing, so this gives what training the whole network
with its backbone frozen would give, for the price of the heads. The network is shadowed by one whose segments look
features up instead of computing them; its inputs are numbers of rows.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..hardware.book import LatencyBook
from ..spaces.adopted.tape import Tape
from ..spaces.architecture import Architecture
from ..spaces.errors import EvaluationFailed, ShapeError, SpecError
from ..spaces.exit_step import ExitStep
from ..spaces.families import EarlyExit
from ..spaces.network import DynamicNetwork
from ..spaces.step import AbstractStep, Routing, SegmentStep, Simulation
from ..spaces.trace import Part as TracePart
from ..spaces.views import Seen
from .evaluator import AbstractEvaluator, AbstractSession, Task
from .features import LOGITS, MEANS, WHOLE, FeatureStore, Trunk
from .from_scratch import ScratchSession
from .splits import Part, Splits

FEATURES = "features"  # folder beside the candidates
ROWS = "rows"  # in the memory of a run


@final
@dataclass(frozen=True)
class FrozenBackbone(AbstractEvaluator):
    """Trains nothing but the heads of exits on a frozen, adopted network."""

    name: ClassVar[str] = "frozen_backbone"
    instead_of: ClassVar[str] = "from_scratch"

    def suits(self, architecture: Architecture) -> bool:
        """Whether nothing but exits was added to weights that do not learn."""
        return architecture.backbone.get("rate") == 0 and set(architecture.families) <= {EarlyExit.name}

    def start(self, task: Task, splits: Splits, book: LatencyBook) -> AbstractSession:
        """Compute the features that are missing, or wait for who does."""
        try:
            folder = task.folder.parent.parent / FEATURES  # of the search, beside its candidates
            return ScratchSession(task, splits, book, shadow=lambda network: shadowed(network, splits, folder))
        except (SpecError, ShapeError) as error:
            raise EvaluationFailed(f"cannot be built: {error}") from error


def shadowed(network: DynamicNetwork, splits: Splits, folder: Path) -> tuple[DynamicNetwork, Splits] | None:
    """A network that shares the exits and looks everything else up, and the splits as numbers of rows.

    None where that would save nothing: without exits, or where the features would take more room than is allowed.

    Args:
        network: frozen but for its exits.
        splits: inputs.
        folder: of the features, which all candidates share.
    """
    names = ("train", "calibrate", "tune", "certify")
    parts = {name: getattr(splits, name) for name in names}
    trunk, exits = taken_apart(network)
    if not exits:
        return None
    readings = [_reading(place, step) for place, step in exits]
    store = FeatureStore(folder, trunk, parts)
    if not store.ensure([place for place, kind, _ in readings if kind == WHOLE]):
        return None
    offsets, total = {}, 0
    for name in names:
        offsets[name], total = total, total + len(parts[name])
    steps: list[AbstractStep] = []
    for (_, step), (place, kind, module) in zip(exits, readings, strict=True):
        rows = _Rows(store, offsets, f"{place}.{kind}")
        steps += [LookUpStep(rows, pooled=kind == MEANS and _pools(module)), _sharing(step, module)]
    steps.append(LookUpStep(_Rows(store, offsets, LOGITS), final=True))
    shadow = DynamicNetwork(network.architecture, network.signature, steps)
    numbered = {
        name: Part(torch.arange(offsets[name], offsets[name] + len(part)).unsqueeze(1), part.y)
        for name, part in parts.items()
    }
    return shadow, Splits(signature=splits.signature, **numbered)


def taken_apart(network: DynamicNetwork) -> tuple[Trunk, list[tuple[int, ExitStep]]]:
    """The trunk of a network and its exits, each with the number of the block that it follows.

    Raises:
        ShapeError: if it holds anything else, or something in the trunk learns.
    """
    modules: list[nn.Module] = []
    exits: list[tuple[int, ExitStep]] = []
    for step in network.steps:
        if isinstance(step, ExitStep):
            exits.append((len(modules) - 2, step))
        elif isinstance(step, SegmentStep) and isinstance(step.body, nn.Sequential):
            modules += list(step.body)
        else:
            found = type(step).__name__
            raise ShapeError(f"a frozen network must hold nothing but segments and exits, but has a {found}")
    frozen = all(isinstance(module, Tape) and module.rate == 0 for module in modules)
    if not frozen:
        raise ShapeError("features can be kept only of a network whose backbone is frozen, but this one learns")
    views = [step.head.view for _, step in exits if isinstance(step.head, Seen)]
    model = str(network.architecture.backbone.get("model", ""))
    return Trunk([module.eval() for module in modules], views[0] if views else nn.Identity(), model), exits


def _reading(place: int, step: ExitStep) -> tuple[int, str, nn.Module]:
    """What a head reads: its place, means or everything, and the head behind the view."""
    module = step.head.module if isinstance(step.head, Seen) else step.head
    small = _pools(module) or isinstance(_first(module), nn.Linear)
    return place, MEANS if small else WHOLE, module


def _first(module: nn.Module) -> nn.Module:
    return module[0] if isinstance(module, nn.Sequential) else module


def _pools(module: nn.Module) -> bool:
    """Whether a head begins with the mean over the sides, which of one place is that place."""
    first = _first(module)
    return isinstance(first, nn.AdaptiveAvgPool2d) and first.output_size in (1, (1, 1))


def _sharing(step: ExitStep, module: nn.Module) -> ExitStep:
    """The same exit, with the head behind the view; weights and temperature are shared."""
    made = copy.copy(step)
    made.__dict__["_modules"] = {**step._modules, "head": module}
    return made


@final
class _Rows:
    """Rows of all splits, which are numbered through."""

    def __init__(self, store: FeatureStore, offsets: Mapping[str, int], name: str) -> None:
        self._arrays: Sequence[tuple[int, NDArray[np.float32]]] = [
            (offset, store.read(split, name)) for split, offset in offsets.items()
        ]

    def __call__(self, rows: Tensor) -> Tensor:
        """Numbers `b` within one split -> what is kept of them."""
        first = int(rows.min())
        offset, array = max((each for each in self._arrays if each[0] <= first), key=lambda each: each[0])
        return torch.from_numpy(array[(rows - offset).numpy()])


@final
class LookUpStep(AbstractStep):
    """Stands in the place of a segment and looks up what that would compute.

    Args:
        rows: numbers of inputs `b` -> features or logits.
        pooled: whether these are means `b x c`, for a head that takes `b x c x 1 x 1`.
        final: whether these are the logits of the final head.
    """

    def __init__(self, rows: _Rows, *, pooled: bool = False, final: bool = False) -> None:
        super().__init__()
        self.rows = rows
        self.pooled = pooled
        self.final = final

    def parts(self, run: Simulation) -> tuple[TracePart, ...]:
        """None: nothing that a network in use would run."""
        return ()

    def names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def watched(self) -> Mapping[str, nn.Module]:
        """None."""
        return {}

    def simulate(self, run: Simulation) -> None:
        """Look up the features, or the final logits."""
        numbers = run.memory.setdefault(ROWS, run.features)
        made = self.rows(numbers.flatten().cpu()).to(numbers.device)
        if self.final:
            run.logits.append(made)
        run.features = made[:, :, None, None] if self.pooled else made

    def route(self, run: Routing) -> None:
        """Nobody uses a shadow: it knows no inputs but those of the splits."""
        raise ShapeError("a network that looks features up cannot be routed; route the one that it shadows")
