"""The evaluators. Adding one: a file beside this one, a line in `EVALUATORS`, a row in the tests."""

from __future__ import annotations

from ..spaces.architecture import Architecture
from ..spaces.errors import UnknownNameError
from .evaluator import AbstractEvaluator
from .from_scratch import FromScratch
from .frozen_backbone import FrozenBackbone
from .nothing import Nothing

EVALUATORS: tuple[AbstractEvaluator, ...] = (FrozenBackbone(), FromScratch(), Nothing())


def evaluator_of(architecture: Architecture, name: str) -> AbstractEvaluator:
    """The evaluator of that name, or one that gives the same of this candidate for less."""
    cheaper = (member for member in EVALUATORS if member.instead_of == name and member.suits(architecture))
    return next(cheaper, None) or evaluator(name)


def evaluator(name: str, path: str = "search.evaluator") -> AbstractEvaluator:
    """The evaluator of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    for member in EVALUATORS:
        if member.name == name:
            return member
    raise UnknownNameError(path, name, [member.name for member in EVALUATORS])
