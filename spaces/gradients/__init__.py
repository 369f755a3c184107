"""Gradient estimators. Adding one: a file here, a line in `GRADIENTS`, a row in the tests."""

from ..errors import UnknownNameError
from ..gradient import AbstractGradient
from .gumbel import Gumbel
from .reinforce import Reinforce
from .straight_through import StraightThrough

GRADIENTS: tuple[AbstractGradient, ...] = (Gumbel(), StraightThrough(), Reinforce())


def gradient(name: str, path: str = "gradient") -> AbstractGradient:
    """The estimator of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    for member in GRADIENTS:
        if member.name == name:
            return member
    raise UnknownNameError(path, name, [member.name for member in GRADIENTS])


__all__ = ["GRADIENTS", "gradient"]
