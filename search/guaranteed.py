"""Which points of a front keep a promise: an accuracy that drops by no more than their user allows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..evaluators.guarantee import conformal, drops, learn_then_test, least_limit
from ..evaluators.score_table import ScoreTables
from ..spaces.errors import DataError, UnknownNameError
from .front_point import FrontPoint

Method = Literal["learn_then_test", "conformal"]


def guaranteed(
    points: Sequence[FrontPoint], *, max_drop: float, confidence: float, method: Method
) -> tuple[FrontPoint, ...]:
    """The points whose promise holds, in their order.

    A drop is against the same network run whole. The certify split, which nothing was chosen on, is the evidence, and
    the tune split puts the points of a candidate in order. Candidates share the doubt equally, so the promise is one
    for all points that are given.

    Args:
        points: of a finished search.
        max_drop: accuracy that may be lost, as a fraction.
        confidence: of `learn_then_test`; `conformal` promises an expectation.
        method: `learn_then_test` or `conformal`.

    Raises:
        SpecError: if drop or confidence cannot be promised.
        UnknownNameError: if there is no such method.
        DataError: if the certify split is too small to promise this of any policy, or a candidate's files are gone.
    """
    if method not in ("learn_then_test", "conformal"):
        raise UnknownNameError("method", method, ("learn_then_test", "conformal"))
    candidates = dict.fromkeys(point.folder for point in points)
    kept: set[str] = set()
    for folder in candidates:
        own = sorted(
            (point for point in points if point.folder == folder),
            key=lambda point: (-point.tune["accuracy"], -point.predicted_ms),
        )
        losses = drops(_certify(folder), [point.policy for point in own])
        if method == "conformal":
            held = conformal(losses, limit=max_drop)
        else:
            share = 1 - (1 - confidence) / len(candidates)
            held = learn_then_test(losses, limit=max_drop, confidence=share)
            _check_size(len(losses), max_drop, share)
        kept |= {point.label for point in own[:held]}
    return tuple(point for point in points if point.label in kept)


def _certify(folder: Path) -> ScoreTables:
    try:
        return ScoreTables.load(folder / "certify.npz")
    except DataError as error:
        raise DataError(f"candidate {folder.name}", f"{error}; restore the storage") from None


def _check_size(n: int, max_drop: float, confidence: float) -> None:
    least = least_limit(n, confidence)
    if least > max_drop:
        raise DataError(
            "max_drop",
            f"must be at least {least:.4f}, as {n} certify inputs can rule out no less even if none is lost, but got "
            f"{max_drop:g}; allow more, or search with a larger share in data.splits.certify",
        )
