"""Features: what the exits of a frozen network read of every input, computed once and kept on disk.

    folder / <model> / train-<inputs>.3.means.npy     means over the sides after block 3, `n x c`
                       train-<inputs>.3.whole.npy     everything, `n x c x h x w`, only where a head asks for it
                       train-<inputs>.logits.npy      of the final head

`<inputs>` is a digest of a sample of the split. Files are memory-mapped, so the workers of a node share one copy, in
whatever memory is left.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from .splits import Part

MEANS, WHOLE, LOGITS = "means", "whole", "logits"
LARGEST_BYTES = 4 * 2**30  # of all files of one search; what needs more is computed again each time
BATCH = 256


@final
@dataclass(frozen=True)
class Trunk:
    """A frozen network without its exits.

    Args:
        modules: stem, blocks and head; each takes what the one before gives.
        view: what exits see of the features.
        model: id that tells this trunk from others.
    """

    modules: Sequence[nn.Module]
    view: nn.Module
    model: str

    @property
    def places(self) -> range:
        """The blocks that an exit may follow."""
        return range(len(self.modules) - 3)


@final
class FeatureStore:
    """Features of a trunk for the splits of a search.

    Args:
        folder: where to keep them.
        trunk: in evaluation mode.
        parts: name -> split.
        largest_bytes: most that all files may take.
    """

    def __init__(
        self, folder: Path, trunk: Trunk, parts: Mapping[str, Part], *, largest_bytes: int = LARGEST_BYTES
    ) -> None:
        self._trunk = trunk
        self._parts = parts
        self._largest = largest_bytes
        self._home = folder / trunk.model
        self._marks = {name: _mark(part) for name, part in parts.items()}
        self.computed = 0  # inputs that went through the trunk

    def ensure(self, whole: Sequence[int]) -> bool:
        """Compute what is missing: means after every block, logits, and everything after the blocks `whole`.

        Returns:
            Whether it is all there; False: it would take more room than is allowed.
        """
        self._home.mkdir(parents=True, exist_ok=True)
        with _locked(self._home / "lock"):
            names = [LOGITS, *(f"{k}.{MEANS}" for k in self._trunk.places), *(f"{k}.{WHOLE}" for k in whole)]
            missing = {split: [n for n in names if not self._file(split, n).exists()] for split in self._parts}
            if not any(missing.values()):
                return True
            there = sum(file.stat().st_size for file in self._home.parent.rglob("*.npy"))
            if there + sum(self._bytes(split, each) for split, each in missing.items()) > self._largest:
                return False
            for split, each in missing.items():
                self._compute(split, each)
        return True

    def read(self, split: str, name: str) -> NDArray[np.float32]:
        """One file, memory-mapped: `n x ...`."""
        made: NDArray[np.float32] = np.load(self._file(split, name), mmap_mode="r", allow_pickle=False)
        return made

    def _file(self, split: str, name: str) -> Path:
        return self._home / f"{split}-{self._marks[split]}.{name}.npy"

    def _bytes(self, split: str, names: Sequence[str]) -> int:
        part = self._parts[split]
        one = dict(self._run(part.x[:1]))
        return sum(len(part) * 4 * one[name].numel() for name in names)

    @torch.no_grad()
    def _run(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Everything that could be kept of inputs."""
        features = x
        for index, module in enumerate(self._trunk.modules[:-1]):
            features = module(features)
            if index - 1 in self._trunk.places:
                seen = self._trunk.view(features)
                yield f"{index - 1}.{MEANS}", means(seen)
                yield f"{index - 1}.{WHOLE}", seen
        yield LOGITS, self._trunk.modules[-1](features)

    def _compute(self, split: str, names: Sequence[str]) -> None:
        """In one go over the split; a file is there when it is whole."""
        part, files = self._parts[split], {}
        device = next((weight.device for module in self._trunk.modules for weight in module.parameters()), None)
        partial: Callable[[str], Path] = lambda name: self._file(split, name).with_suffix(".partial")  # noqa: E731
        for start in range(0, len(part) if names else 0, BATCH):
            x = part.x[start : start + BATCH].to(device)
            self.computed += len(x)
            for name, made in self._run(x):
                if name in names:
                    if name not in files:
                        shape = (len(part), *made.shape[1:])
                        files[name] = np.lib.format.open_memmap(partial(name), "w+", np.float32, shape)
                    files[name][start : start + len(x)] = made.cpu().numpy()
        for name, array in files.items():
            array.flush()
            partial(name).replace(self._file(split, name))


def means(seen: Tensor) -> Tensor:
    """`b x c x h x w` -> `b x c`, as heads that begin with a mean take it; flat rows as they are."""
    return functional.adaptive_avg_pool2d(seen, 1).flatten(1) if seen.dim() == 4 else seen


def _mark(part: Part) -> str:
    """What tells a split from others."""
    made = hashlib.sha256(str(tuple(part.x.shape)).encode())
    made.update(part.x[:: max(1, len(part) // 64)].contiguous().numpy().tobytes())
    return made.hexdigest()[:12]


@contextmanager
def _locked(file: Path) -> Iterator[Any]:
    """One process at a time; the others find the work done."""
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield held
