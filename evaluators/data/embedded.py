"""The embedded data sets: one for each kind of task that a search can be tried on without any file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arrays import from_arrays
from .data import Data
from .drifts import drifts
from .opinions import opinions


def digits() -> Data:
    """The embedded default: 1,797 handwritten digits of 8 x 8 pixels.

    Source: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository 1998,
        as it ships with scikit-learn.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return from_arrays((bunch.images / 16).astype(np.float32), bunch.target, name="digits")


EMBEDDED: dict[str, Callable[[], Data]] = {"digits": digits, "opinions": opinions, "drifts": drifts}
