"""The families. Adding one: a file in its wing, a line in `FAMILIES`, a row in the tests.

The order is the order in which families change a network.
"""

from ..errors import UnknownNameError
from ..family import AbstractFamily
from .sample import EarlyExit, LayerSkipping, MixtureOfExperts, SlimmableWidth

FAMILIES: tuple[type[AbstractFamily], ...] = (
    LayerSkipping,
    SlimmableWidth,
    MixtureOfExperts,
    EarlyExit,
)


def family_type(name: str, path: str = "families") -> type[AbstractFamily]:
    """The family of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    for member in FAMILIES:
        if member.name == name:
            return member
    raise UnknownNameError(path, name, [member.name for member in FAMILIES])


__all__ = ["FAMILIES", "EarlyExit", "LayerSkipping", "MixtureOfExperts", "SlimmableWidth", "family_type"]
