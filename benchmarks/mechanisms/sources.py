"""Real data of each kind for the benchmark of the families, and small embedded data to try it on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
from matplotlib.image import imread

import dynarch as da
from dynarch.benchmarks.fashion_mnist import read_data
from dynarch.evaluators.data import digits, from_arrays
from dynarch.spaces.errors import DataError


@final
@dataclass(frozen=True)
class Source:
    """A data set.

    Args:
        name: for tables.
        kind: of its inputs.
        load: (folder of all data, number of inputs to train and tune on, seed) -> data with a test set.
        recipe: how networks are trained on it.
        epochs: of a training.
    """

    name: str
    kind: str
    load: Callable[[Path, int, int], da.Data]
    recipe: da.Recipe
    epochs: int


def fashion_mnist(folder: Path, count: int, seed: int) -> da.Data:
    """Grey images of 28 x 28 pixels in 10 classes; the 10,000 official test images."""
    return read_data(folder / "image" / "fashion_mnist", count, seed)


def cifar10(folder: Path, count: int, seed: int) -> da.Data:
    """Colour images of 32 x 32 pixels in 10 classes, of a tenth of the training images; 5,000 official test images."""
    place = folder / "image" / "cifar10"
    try:
        x, x_test = (_pixels(place / f"{name}.png") for name in ("data_batch_1", "test_first5000"))
        with np.load(place / "labels.npz", allow_pickle=False) as labels:
            y, y_test = labels["train_y"][: len(x)], labels["test_y"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError("--data", f"{place} cannot be read ({error})") from None
    rows = np.random.default_rng(seed).permutation(len(x))[:count]
    return from_arrays(x[rows], y[rows], x_test=x_test, y_test=y_test, name="cifar10", path="--data")


def _pixels(file: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The rows of a picture as images `n x 3 x 32 x 32`."""
    return np.ascontiguousarray(imread(file)[..., :3].reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2), np.float32)


def embedded_digits(folder: Path, count: int, seed: int) -> da.Data:
    """Digits of 8 x 8 pixels; a third of them is the test set."""
    whole = digits()
    order = np.random.default_rng(seed).permutation(len(whole.y))
    rows, test = order[:count], order[-len(order) // 3 :]
    return from_arrays(whole.x[rows], whole.y[rows], x_test=whole.x[test], y_test=whole.y[test], name="digits")


_IMAGES: Final = da.Recipe(learning_rate=(0.004,), batch_size=64)
# The first of a kind is the one that families of that kind are tried on.
SOURCES: Final = (
    Source("fashion_mnist", "image", fashion_mnist, _IMAGES, 6),
    Source("cifar10", "image", cifar10, da.Recipe(learning_rate=(0.004,), batch_size=64, flip=True), 8),
)
EMBEDDED: Final = (Source("digits", "image", embedded_digits, _IMAGES, 3),)
