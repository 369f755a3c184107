"""Checks of raw inputs and labels: numbers, finite, rectangular."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...spaces.errors import DataError
from .data import Array


def plain(value: object, path: str) -> Array:
    """An array of whatever holds numbers.

    Raises:
        DataError: if its rows differ in shape or type.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value  # numpy has no such type
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype == object:
        raise DataError(path, "must be a rectangular array of numbers, but its rows differ in shape or type")
    return array


def numbers(value: object, path: str) -> Array:
    """Finite float32 inputs `n x ...`; bytes are scaled to `[0, 1]`.

    Raises:
        DataError: if there are none, or they are no finite numbers.
    """
    array = plain(value, path)
    if array.ndim < 2 or array.shape[0] == 0:
        raise DataError(path, f"must be n x ... with n >= 1, but has shape {array.shape}")
    if array.dtype == np.uint8:
        array = array.astype(np.float32) / 255
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise DataError(path, f"must hold numbers, but holds {array.dtype}")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is found so
        array = array.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))
    if bad.size:
        raise DataError(path, f"must be finite, but {bad.size} inputs are not (first: number {bad[0]}); clean them")
    return array


def labels(value: object, path: str) -> Array:
    """int64 class indices `n`.

    Raises:
        DataError: if they are no whole numbers from 0 on.
    """
    array = plain(value, path)
    if array.ndim != 1 or array.shape[0] == 0:
        raise DataError(path, f"must be n class indices, but has shape {array.shape}")
    real = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if not real or not np.isfinite(array).all() or (array != np.floor(array)).any():
        raise DataError(path, "must be whole numbers 0 .. classes - 1")
    if array.min() < 0:
        raise DataError(path, f"labels must be 0 .. classes - 1, but got {array.min()}")
    return array.astype(np.int64)
