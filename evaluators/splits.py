"""Splits: train | calibrate | tune | certify | test, each with one job.

train fits weights; calibrate tempers the exits; tune is what both searches look at; certify tells how
much of what tune promised is left on data that nothing was chosen on; test is opened once, at the end.
Workers never receive the test split, so no search step can see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..spaces.errors import DataError
from ..spaces.signature import Signature
from ..spaces.spec import AbstractSpec, require
from .data import Data, restricted

NAMES = ("train", "calibrate", "tune", "certify", "test")
SMALLEST = {"train": 2, "calibrate": 10, "tune": 20, "certify": 20, "test": 20}


@final
@dataclass(frozen=True)
class SplitSpec(AbstractSpec):
    """Shares of the data; what they leave is the train split.

    If the data brings a test set of its own, that is the test split and `test` is not used.
    """

    calibrate: float = 0.1
    tune: float = 0.15
    certify: float = 0.1
    test: float = 0.2

    def check(self) -> None:
        """Positive shares that leave something to train on."""
        for name in ("calibrate", "tune", "certify", "test"):
            share = getattr(self, name)
            require(0 < share < 1, name, f"must be a share between 0 and 1, but got {share}")
        total = self.calibrate + self.tune + self.certify + self.test
        require(total < 0.95, "calibrate", f"the shares must leave 5 % to train on, but add up to {total:.2f}")


@final
@dataclass(frozen=True)
class Part:
    """One split.

    Args:
        x: `n x ...` inputs.
        y: `n` labels.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@final
@dataclass(frozen=True)
class Splits:
    """The splits that a worker may see: all but the test split."""

    train: Part
    calibrate: Part
    tune: Part
    certify: Part
    signature: Signature

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.signature.classes


def split_indices(data: Data, spec: SplitSpec, seed: int) -> dict[str, NDArray[np.int64]]:
    """Deterministic, stratified numbers of the inputs of each split.

    A test set that comes with the data is not among them: `test` is then empty.

    Raises:
        DataError: if a split would be too small to mean anything.
    """
    generator = np.random.default_rng([seed, 0x51])
    shares = {name: getattr(spec, name) for name in NAMES[1:]}
    if data.x_test is not None:
        shares["test"] = 0.0
    order = _stratified_order(data.y, generator)
    bounds, start = {}, 0
    for name, share in shares.items():
        stop = start + round(share * len(order))
        bounds[name], start = order[start:stop], stop
    bounds["train"] = order[start:]
    sizes = {name: len(rows) for name, rows in bounds.items()}
    if data.x_test is not None:
        sizes["test"] = len(data.x_test)
    for name, size in sizes.items():
        if size < SMALLEST[name]:
            rule = f"must have at least {SMALLEST[name]} inputs, but "
            if name == "test" and data.x_test is not None:
                rest = f"the test set has {size}; bring a larger one, or none to have it cut off"
            else:
                rest = f"{len(data.x)} inputs give {size}; bring more data or raise this share"
            raise DataError(f"data.splits.{name}", rule + rest)
    absent = set(range(data.classes)) - set(np.unique(data.y[bounds["train"]]).tolist())
    if absent:
        raise DataError("data.splits.train", f"must hold every class, but lacks {sorted(absent)[:5]}")
    return bounds


def visible_splits(data: Data, spec: SplitSpec, seed: int) -> Splits:
    """All splits but the test split."""
    rows = split_indices(data, spec, seed)
    parts = {name: _part(data.x[rows[name]], data.y[rows[name]]) for name in NAMES[:4]}
    return Splits(signature=data.signature, **parts)


def with_vocabulary(data: Data, spec: SplitSpec, seed: int) -> Data:
    """Texts whose vocabulary holds the words of the train split alone; other data as it is.

    Done twice it changes nothing more.
    """
    if data.kind != "text":
        return data
    return restricted(data, split_indices(data, spec, seed)["train"])


def sealed_test(data: Data, spec: SplitSpec, seed: int) -> Part:
    """The test split. The engine calls this once for a search, after the last choice is made."""
    if data.x_test is not None and data.y_test is not None:
        return _part(data.x_test, data.y_test)
    rows = split_indices(data, spec, seed)["test"]
    return _part(data.x[rows], data.y[rows])


def _part(x: NDArray[Any], y: NDArray[Any]) -> Part:
    # `ascontiguousarray` keeps odd strides of axes of length 1, which pass for channels-last; see `augment`.
    inputs = torch.from_numpy(np.ascontiguousarray(x)).clone(memory_format=torch.contiguous_format)
    return Part(inputs, torch.from_numpy(np.ascontiguousarray(y)))


def _stratified_order(y: NDArray[Any], generator: np.random.Generator) -> NDArray[np.int64]:
    """A shuffled order in which every stretch holds the classes in about their overall shares."""
    position = np.empty(len(y))
    for label in np.unique(y):
        rows = generator.permutation(np.flatnonzero(y == label))
        position[rows] = (np.arange(len(rows)) + generator.random()) / len(rows)
    return np.argsort(position, kind="stable").astype(np.int64)
