"""The decision schemes. Adding one: a file here, a line in `DECISIONS`, a row in the tests."""

from ..decision import AbstractDecision
from ..errors import UnknownNameError
from .entropy import Entropy
from .learned_confidence import LearnedConfidence
from .margin import Margin
from .max_probability import MaxProbability
from .patience import Patience

DECISIONS: tuple[AbstractDecision, ...] = (MaxProbability(), Entropy(), Margin(), Patience(), LearnedConfidence())


def decision(name: str, path: str = "decision") -> AbstractDecision:
    """The decision scheme of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    for member in DECISIONS:
        if member.name == name:
            return member
    raise UnknownNameError(path, name, [member.name for member in DECISIONS])


__all__ = ["DECISIONS", "Entropy", "LearnedConfidence", "Margin", "MaxProbability", "Patience", "decision"]
