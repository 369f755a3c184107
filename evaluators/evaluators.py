"""The evaluators. Adding one: a file beside this one, a line in `EVALUATORS`, a row in the tests."""

from __future__ import annotations

from ..spaces.architecture import Architecture
from ..spaces.errors import UnknownNameError
from .evaluator import AbstractEvaluator
from .from_scratch import FromScratch
from .frozen_backbone import FrozenBackbone

EVALUATORS: tuple[AbstractEvaluator, ...] = (FrozenBackbone(), FromScratch())


def evaluator_of(architecture: Architecture, *, dearest: str = "") -> AbstractEvaluator:
    """The cheapest evaluator that suits a candidate; `dearest` names the one that suits whatever comes."""
    return next(member for member in EVALUATORS if member.name == dearest or member.suits(architecture))


def evaluator(name: str, path: str = "search.evaluator") -> AbstractEvaluator:
    """The evaluator of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    for member in EVALUATORS:
        if member.name == name:
            return member
    raise UnknownNameError(path, name, [member.name for member in EVALUATORS])
